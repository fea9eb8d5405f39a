"""Topology files: the hosts, networks and VMs of a lab."""
