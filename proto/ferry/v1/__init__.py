"""Version 1 of the wire contract: the ``.proto`` files and their generated stubs."""
