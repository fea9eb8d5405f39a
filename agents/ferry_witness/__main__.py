"""``python -m ferry_witness``, which ``ferry witness run`` executes."""

import asyncio

from ferry_types.errors import FerryError
from ferry_wire.logs import configure_logging
from ferry_wire.process_settings import refuse_to_start
from ferry_witness.service import serve
from ferry_witness.settings import PROGRAM, load_settings


def main() -> None:
    """Run the process until it is told to stop; exits with a message if it cannot go on."""
    settings = load_settings()
    configure_logging(settings.log_level)
    try:
        asyncio.run(serve(settings))
    except FerryError as error:
        refuse_to_start(PROGRAM, error.refusal)


if __name__ == "__main__":
    main()
