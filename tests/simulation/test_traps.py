"""The catalogue of what gives two runners, lost writes or a stuck VM: each of it is planted somewhere."""

import re
from pathlib import Path

TRAPS = 23


def test_every_trap_is_planted() -> None:
    tests = Path(__file__).parent.parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in tests.rglob("test_*.py"))
    planted = {int(number) for number in re.findall(r'"""Trap (\d+)[:.,]', text)}
    assert planted == set(range(1, TRAPS + 1))
