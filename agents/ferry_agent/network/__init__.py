"""The host's NICs: they hold real traffic to the speed of emulated links."""
