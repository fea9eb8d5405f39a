"""Adapters: what stands behind the ports of ``ferry_coordinator.ports``."""
