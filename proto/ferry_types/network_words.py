"""NICs, teams, networks and limits as people write them: ``name=m,network=mig``, or a table of these.

Both forms are read alike, with the same words for what is wrong. All functions raise ValueError.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

from ferry_types.links import TrafficClass
from ferry_types.networks import (
    RATE_BYTES_PER_S_MAX,
    RATE_BYTES_PER_S_MIN,
    Network,
    NetworkRole,
    Nic,
    Team,
    TeamMode,
)
from ferry_types.qos import WEIGHT_SUM, QosPolicy
from ferry_types.units import parse_duration, parse_rate

Read = Callable[[object, str], Any]

_W = TypeVar("_W", bound=StrEnum)

_TRUTH: Final = {"yes": True, "true": True, "no": False, "false": False}


def parse_nic(given: object) -> Nic:
    """A NIC of its words."""
    nic = Nic(**_read("NIC", given, _NIC, ("name", "network", "address")))
    nic.validate()
    return nic


def parse_team(given: object) -> Team:
    """A team of its words."""
    team = Team(**_read("team", given, _TEAM, ("name", "mode")))
    team.validate()
    return team


def parse_network(given: object) -> Network:
    """A network of its words."""
    network = Network(**_read("network", given, _NETWORK, ("name", "role")))
    network.validate()
    return network


def parse_qos(given: object) -> QosPolicy:
    """What a class of traffic gets, of its words."""
    policy = QosPolicy(**_read("class of traffic", given, _QOS, ("class",)))
    policy.validate()
    return policy


def nic_words(nic: Nic) -> str:
    """What ``parse_nic`` reads as this NIC."""
    words = [f"name={nic.name}", f"network={nic.network}", f"address={nic.address}", f"mtu={nic.mtu}"]
    words += [f"rate={nic.rate_bytes_per_s}B/s"] if nic.rate_bytes_per_s else []
    words += [f"latency={nic.latency_s * 1e6:.3f}us"] if nic.latency_s else []
    words += ["rdma=yes"] if nic.rdma else []
    words += [f"team={nic.team}"] if nic.team else []
    return ",".join(words)


def team_words(team: Team) -> str:
    """What ``parse_team`` reads as this team."""
    return f"name={team.name},mode={team.mode}"


def network_words(network: Network) -> str:
    """What ``parse_network`` reads as this network."""
    words = [f"name={network.name}", f"role={network.role}"]
    words += [f"metric={network.metric}"] if network.metric else []
    words += [f"subnet={network.subnet}"] if network.subnet else []
    return ",".join(words)


def qos_words(policy: QosPolicy) -> str:
    """What ``parse_qos`` reads as this policy."""
    words = [f"class={policy.traffic_class}"]
    words += [f"limit={policy.limit_bytes_per_s}B/s"] if policy.limit_bytes_per_s else []
    words += [f"weight={policy.weight}"] if policy.weight else []
    return ",".join(words)


def share_weight(given: object, what: str = "weight") -> int:
    """A class's minimum share of a NIC, in per cent."""
    weight = _number(given, what)
    if not 1 <= weight <= WEIGHT_SUM:
        raise ValueError(
            f"a {what} of {weight} is out of range: from 1 to {WEIGHT_SUM} per cent; leave it out for a "
            "part of what others leave"
        )
    return weight


def limit_rate(given: object, what: str = "rate") -> int:
    """Bytes per second of a limit that lets something through, and that a NIC can have."""
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError(f"{what} {given!r} is no rate: write for example 10Gbit/s")
    rate = parse_rate(given) if isinstance(given, str) else given
    if rate == 0:
        raise ValueError(f"a {what} of zero lets nothing through: leave it out, and there is no bound")
    if not RATE_BYTES_PER_S_MIN <= rate <= RATE_BYTES_PER_S_MAX:
        raise ValueError(f"a {what} of {str(given)[:80]} is out of range: from 8kbit/s to 400Gbit/s")
    return rate


# --- reading --------------------------------------------------------------------------------------------


def _read(what: str, given: object, fields: Mapping[str, tuple[str, Read]], required: tuple[str, ...]) -> Any:
    """Arguments for the value's class. ``fields``: word -> field, and how its value is read."""
    words = _split(what, given) if isinstance(given, str) else given
    if not isinstance(words, Mapping):
        form = ",".join(f"{word}=..." for word in required)
        raise ValueError(f"{given!r} is no {what}: write it as {form}, or as a table")
    unknown = [word for word in words if word not in fields]
    if unknown:
        raise ValueError(f"a {what} has no {str(unknown[0])[:80]!r}: it has {', '.join(fields)}")
    for word in required:
        if word not in words:
            raise ValueError(f"a {what} needs a {word}")
    return {fields[word][0]: fields[word][1](value, word) for word, value in words.items()}


def _split(what: str, text: str) -> dict[str, str]:
    words: dict[str, str] = {}
    for pair in text.split(","):
        word, equals, value = (part.strip() for part in pair.partition("="))
        if not (word and equals and value):
            raise ValueError(f"{pair[:80]!r} in a {what} is not of the form name=value")
        if word in words:
            raise ValueError(f"{word} is there twice in a {what}")
        words[word] = value
    return words


def _text(given: object, word: str) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise ValueError(f"{word} {given!r} is no text")


def _number(given: object, word: str) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) <= 18:
        return int(given)
    raise ValueError(f"{word} {given!r} is no whole number")


def _latency(given: object, word: str) -> float:
    if isinstance(given, str):
        return round(parse_duration(given), 9)  # 50us is not 4.9999999999999996e-05
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    raise ValueError(f"{word} {given!r} is no time: write for example 250us")


def _truth(given: object, word: str) -> bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.lower() in _TRUTH:
        return _TRUTH[given.lower()]
    raise ValueError(f"{word} {given!r} is neither yes nor no")


def _one_of(words: type[_W]) -> Read:
    def read(given: object, word: str) -> _W:
        try:
            return words(str(given))
        except ValueError:
            raise ValueError(f"{word} {str(given)[:80]!r} is not one of {', '.join(words)}") from None

    return read


_NIC: Final[Mapping[str, tuple[str, Read]]] = {
    "name": ("name", _text),
    "network": ("network", _text),
    "address": ("address", _text),
    "rate": ("rate_bytes_per_s", limit_rate),
    "latency": ("latency_s", _latency),
    "mtu": ("mtu", _number),
    "rdma": ("rdma", _truth),
    "team": ("team", _text),
}
_QOS: Final[Mapping[str, tuple[str, Read]]] = {
    "class": ("traffic_class", _one_of(TrafficClass)),
    "limit": ("limit_bytes_per_s", limit_rate),
    "weight": ("weight", share_weight),
}
_TEAM: Final[Mapping[str, tuple[str, Read]]] = {"name": ("name", _text), "mode": ("mode", _one_of(TeamMode))}
_NETWORK: Final[Mapping[str, tuple[str, Read]]] = {
    "name": ("name", _text),
    "role": ("role", _one_of(NetworkRole)),
    "metric": ("metric", _number),
    "subnet": ("subnet", _text),
}
