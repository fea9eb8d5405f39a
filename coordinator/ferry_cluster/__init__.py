"""The rules of the cluster, as pure state machines: membership, ownership, placement, queue, failover."""
