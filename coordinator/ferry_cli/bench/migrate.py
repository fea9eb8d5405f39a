"""`ferry bench migrate`: one question, beside the peers that were named."""

from ferry_cli.bench.arena import Progress, open_arena
from ferry_cli.bench.catalogue import choose_peers
from ferry_cli.bench.contents import memory_contents
from ferry_cli.bench.document import Question
from ferry_cli.bench.rounds import Measured, in_turn


async def measure(question: Question, runs: int, against: str, progress: Progress) -> Measured:
    """Measure. Raises FerryError; leaves nothing behind, however it ends."""
    peers = choose_peers(against)
    with memory_contents(question.fill, question.memory_bytes) as contents:
        sizes = (question.memory_bytes, question.rate_bytes_per_s)
        async with open_arena(*sizes, progress, compared=bool(peers)) as arena:
            return await in_turn(arena, [question], contents, peers, runs, progress)
