"""What several modules of tests of whole attempts share."""

import functools

import pytest
from tests.unit.migration import ends

from ferry_types.migrations import TransportOption


@pytest.fixture(params=TransportOption)
def option(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TransportOption:
    """Its rules hold whatever way the pages travel: the module's ``two_ends`` is of each option in turn."""
    chosen = TransportOption(request.param)
    monkeypatch.setattr(request.module, "two_ends", functools.partial(ends.two_ends, option=chosen))
    return chosen
