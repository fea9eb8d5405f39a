"""What is told of names that nothing has."""

from ferry_types.errors import Refusal, not_found


def no_vm(name: str) -> Refusal:
    """There is no VM of that name."""
    return not_found(f"there is no VM {name}", "ferry vm list shows those that exist")


def no_node(name: str) -> Refusal:
    """There is no node of that name."""
    return not_found(f"there is no node {name}", "ferry node list shows those that exist")


def no_network(name: str) -> Refusal:
    """There is no network of that name."""
    return not_found(f"there is no network {name}", "ferry network list shows those that exist")


def no_migration(migration_id: str) -> Refusal:
    """There is no move with that id."""
    return not_found(f"there is no migration {migration_id}", "ferry migration list shows them")
