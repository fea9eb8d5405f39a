"""The rules of a host, as pure state machines: VM life cycle, lease, migration source and target."""
