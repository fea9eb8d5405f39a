"""The host's NICs: which are up, where they listen, and how fast they let traffic pass."""
