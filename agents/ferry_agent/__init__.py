"""The host process: memory, guests, migration and lease around the rules of ``ferry_host``."""
