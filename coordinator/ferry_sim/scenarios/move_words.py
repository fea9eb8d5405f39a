"""What may be chosen for one move, in the words of a step: those of ``ferry vm migrate``."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ferry_sim.scenarios import role_words
from ferry_types.migrations import MigrationOptions, TransportOption
from ferry_types.units import parse_duration


def _option(text: str) -> TransportOption:
    if text not in tuple(TransportOption):
        raise ValueError(f"{text!r} is not an option: {', '.join(TransportOption)}")
    return TransportOption(text)


_WORDS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "option": ("option", _option),
    "verify": ("verify", role_words.parse_truth),
    "pass-limit": ("pass_limit", role_words.parse_number),
    "blackout-allowed": ("blackout_allowed_s", parse_duration),
    "throttle": ("throttle", role_words.parse_truth),
    "switch-at-minimum": ("switch_at_minimum", role_words.parse_truth),
    "abort-over-blackout": ("abort_over_blackout", role_words.parse_truth),
}
"""Word -> the field of MigrationOptions that its value sets."""

WORDS: Final = tuple(_WORDS)

FORM: Final = (
    "vm migrate VM to NODE|best [option=tcpip|compression|smb|direct] [verify=true] [pass-limit=10] "
    "[blackout-allowed=50ms] [throttle=true] [switch-at-minimum=true] [abort-over-blackout=true]"
)


def parse_options(pairs: Mapping[str, str]) -> MigrationOptions:
    """Raises ValueError."""
    fields = {_WORDS[word][0]: _WORDS[word][1](text) for word, text in pairs.items()}
    options = MigrationOptions(**fields)
    options.validate()
    return options
