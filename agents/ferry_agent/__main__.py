"""``python -m ferry_agent``, which ``ferry agent run`` executes."""

import asyncio
import sys

from ferry_agent.service import serve
from ferry_agent.settings import load_settings
from ferry_types.errors import EXIT_CODES, FerryError
from ferry_wire.logs import configure_logging


def main() -> int:
    """Run the process until it is told to stop; returns its exit code."""
    settings = load_settings()
    configure_logging(settings.log_level)
    try:
        asyncio.run(serve(settings))
    except FerryError as error:
        refusal = error.refusal
        sys.stderr.write(f"ferry agent run: {refusal.message}\n")
        if refusal.hint:
            sys.stderr.write(f"{refusal.hint}\n")
        return EXIT_CODES[refusal.code]
    return 0


if __name__ == "__main__":
    sys.exit(main())
