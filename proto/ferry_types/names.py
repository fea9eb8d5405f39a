"""Names of nodes, VMs and clusters, validated in one place."""

import re

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NAME = re.compile(NAME_PATTERN)


def validate_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it is well formed.

    ``what`` says whose name it is, for the message. Raises ValueError otherwise.
    """
    if _NAME.fullmatch(name) is None:
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise ValueError(
            f"{what} {shown!r} is not valid: 1 to 64 letters, digits, dots, underscores or hyphens, "
            "the first a letter or digit"
        )
    return name
