"""``ferry demo``: the guided tour."""

from ferry_cli import interrupts
from ferry_cli.output import results
from ferry_types.errors import FerryError, failed


def demo() -> None:
    """The guided tour, in under a minute: lab, VM, live migration, killed host, failover.

    Exit code 1 if anything that it shows does not hold. Leaves nothing behind.
    """
    from ferry_cli.demo.narrator import Narrator
    from ferry_cli.demo.tour import tour

    narrator = Narrator(results())
    try:
        interrupts.run(tour(narrator))
    except TimeoutError:
        raise FerryError(failed("the tour waited in vain for what it wanted to show")) from None
    if narrator.failed:
        raise FerryError(failed(f"the tour showed {len(narrator.failed)} things that did not hold"))
    narrator.finish(
        f"All of it held, in {narrator.elapsed_s:.0f} s. Your turn: ferry lab up, ferry vm create, "
        "ferry --help."
    )
