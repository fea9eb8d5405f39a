"""YAML that people write, read with care: plain values only, none of them twice, each with its line.

Scenarios and topologies are read by it, and what is wrong with them is told alike.

YAML's older habits are left out: ``on`` and ``off`` are words, not truth values; ``12:30`` is no number, and
a date is the text that it is. Tags, anchors and several documents in one file are refused.
"""

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

BYTES_MAX: Final = 2**20
"""Of a file: a thousand times what a long scenario has."""

DEPTH_MAX: Final = 16
"""Of lists and maps in each other: three times what any format has."""

Place = tuple[str | int, ...]
"""Keys and indices that lead to a value."""

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

_WORDS: Final[dict[str, Value]] = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]+\.[0-9]+")
_DIGITS_MAX: Final = 18


class Malformed(Exception):
    """A file is not what it is to be.

    ``problems``: where and what, in words, at least one. ``rule``: or empty.
    """

    def __init__(self, *problems: str, rule: str = "") -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, and on which line each value begins (from 1)."""

    value: Value
    lines: dict[Place, int]

    def line(self, path: Place) -> int:
        """Where the value is, or the innermost one around it that the file has."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_text(path: Path) -> str:
    """A file's text. Raises Malformed if it is too large or no text, OSError if it cannot be read."""
    with path.open("rb") as file:
        content = file.read(BYTES_MAX + 1)
    if len(content) > BYTES_MAX:
        raise Malformed(f"it has more than {BYTES_MAX} bytes, too many for such a file")
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        raise Malformed(f"byte {problem.start} is not UTF-8 text") from None


def parse(text: str) -> Document:
    """The document of a text. Raises Malformed."""
    try:
        _refuse_tricks(text)
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise Malformed(f"{where}it is not YAML: {problem.problem or problem.context}") from None
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        what = f"character {problem.character:#x} cannot be in it"
        raise Malformed(f"line {line}: it is not YAML: {what}") from None
    except yaml.YAMLError as problem:
        raise Malformed(f"it is not YAML: {problem}") from None
    if root is None:
        raise Malformed("it is empty")
    lines: dict[Place, int] = {}
    return Document(_value(root, (), lines), lines)


def _refuse_tricks(text: str) -> None:
    """A few lines of references to references would be gigabytes of values, and depth costs its square."""
    depth = 0
    events: Iterator[yaml.Event] = yaml.parse(text, yaml.SafeLoader)
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if getattr(event, "anchor", None) is not None:
            raise Malformed(f"line {line}: anchors and references are not used here")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise Malformed(f"line {line}: it is nested too deeply")


def _value(node: Node, path: Place, lines: dict[Place, int]) -> Value:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, MappingNode):
        _check_tag(node, "map")
        return _mapping(node, path, lines)
    if isinstance(node, SequenceNode):
        _check_tag(node, "seq")
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    assert isinstance(node, ScalarNode)
    return _scalar(node)


def _mapping(node: MappingNode, path: Place, lines: dict[Place, int]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode) or not isinstance(key_node.value, Hashable):
            raise Malformed(f"line {line}: a name is a word, not a list or a map")
        key = str(key_node.value)
        if key in found:
            raise Malformed(f"line {line}: {key} is there twice")
        found[key] = _value(value_node, (*path, key), lines)
        lines[*path, key] = line
    return found


def _scalar(node: ScalarNode) -> Value:
    text = str(node.value)
    if node.style is not None:  # quoted, or a block of text
        _check_tag(node, "str")
        return text
    if node.tag.startswith("!"):
        raise Malformed(f"line {node.start_mark.line + 1}: tags such as {node.tag} are not used here")
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= _DIGITS_MAX:
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) and len(text) <= _DIGITS_MAX else text


def _check_tag(node: Node, kind: str) -> None:
    if node.tag != f"tag:yaml.org,2002:{kind}":
        line = node.start_mark.line + 1
        raise Malformed(f"line {line}: tags such as {node.tag} are not used here")


# --- what is wrong ---------------------------------------------------------------------------------------

_TOLD: Final[Mapping[str, str]] = {
    "model_type": "write a map of fields here",
    "dict_type": "write a map of names here",
    "tuple_type": "write a list here",
    "string_type": "write a text here",
    "extra_forbidden": "there is no such field",
    "missing": "it is missing",
    "enum": "write one of {expected}",
    "literal_error": "write one of {expected}",
    "int_type": "write a whole number here",
    "int_parsing": "write a whole number here",
    "int_from_float": "write a whole number here",
    "bool_type": "write true or false here",
    "bool_parsing": "write true or false here",
    "greater_than_equal": "it is too small: at least {ge}",
    "less_than_equal": "it is too large: at most {le}",
    "too_short": "these are too few: at least {min_length}",
    "too_long": "these are too many: at most {max_length}",
}
"""Kind of an error of pydantic -> what to say, with what its context has."""


def problems(found: Document, error: ValidationError, limit: int) -> list[str]:
    """What is wrong, the innermost first: a list is not too short because its items are malformed.

    At most ``limit`` of them, each with its line and field.
    """
    details = error.errors(include_url=False)
    places = [detail["loc"] for detail in details]
    told = []
    for detail in details:
        place = detail["loc"]
        if not any(other != place and other[: len(place)] == place for other in places):
            if (template := _TOLD.get(detail["type"])) is not None:
                what = template.format_map(detail.get("ctx", {}))
            else:
                what = detail["msg"].removeprefix("Value error, ")
            told.append(at(found, place, what))
    return list(dict.fromkeys(told))[:limit]


def at(found: Document, place: Place, what: str) -> str:
    """What is wrong with the value at a place, with its line and field."""
    while place and place not in found.lines and place[:-1] in found.lines and _is_inner(place[-1]):
        place = place[:-1]
    field = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")
    return f"line {found.line(place)}: {f'{field}: ' if field else ''}{what}"


def _is_inner(key: str | int) -> bool:
    """Whether a part of an error's place is pydantic's own, such as the kind of a union that was tried."""
    return isinstance(key, str) and not key.isidentifier()
