"""The host's network: its adapters, and what passes them."""
