"""Every log line has a time, a level, a name and its values; libraries are heard from warning on."""

import re
import subprocess
import sys

import pytest

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (\w+) +([\w.]+): (.*)")


def logged(level: str, program: str) -> list[str]:
    """What a process of its own writes to standard error."""
    prepared = f"from ferry_wire.logs import configure_logging\nconfigure_logging({level!r})\n{program}"
    ended = subprocess.run(
        [sys.executable, "-c", prepared], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout == ""
    return ended.stderr.splitlines()


def parts(line: str) -> tuple[str, ...]:
    match = LINE.fullmatch(line)
    assert match is not None, line
    return match.groups()


def test_structured_values_follow_the_event() -> None:
    [line] = logged(
        "info",
        "import structlog\nlog = structlog.get_logger('uplink')\n"
        "log.info('stream ended', address='h:1', reason='two words', port=7, nothing='')",
    )
    assert parts(line) == ("info", "uplink", "stream ended address=h:1 reason='two words' port=7 nothing=''")


def test_a_value_cannot_forge_a_line() -> None:
    [line] = logged("info", r"import structlog; structlog.get_logger('x').info('event', vm='a\n2026 info')")
    assert parts(line)[2] == r"event vm='a\n2026 info'"


def test_our_own_standard_loggers_speak_at_the_level_that_was_asked_for() -> None:
    program = (
        "import logging\n"
        "logging.getLogger('ferry_wire.bus').info('connected to %s', 'h:1')\n"
        "logging.getLogger('ferry_wire.bus').debug('too much')\n"
        "logging.getLogger('grpc').info('not heard')\n"
        "logging.getLogger('asyncio').warning('heard')\n"
    )
    assert [parts(line) for line in logged("info", program)] == [
        ("info", "ferry_wire.bus", "connected to h:1"),
        ("warning", "asyncio", "heard"),
    ]


def test_a_message_cannot_forge_a_line() -> None:
    lines = logged(
        "info",
        r"import structlog; structlog.get_logger('x').info('event\n2026-01-01T00:00:00.000000Z info x: y')",
    )
    assert [LINE.fullmatch(line) is not None for line in lines] == [True, False]


@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_bounds_what_is_logged(level: str, heard: int) -> None:
    program = (
        "import structlog\nlog = structlog.get_logger('x')\n"
        "for method in (log.debug, log.info, log.warning, log.error): method('event')"
    )
    assert len(logged(level, program)) == heard


@pytest.mark.parametrize(
    "logger",
    ["structlog.get_logger('x')", "logging.getLogger('ferry_wire.status')"],
    ids=["structlog", "logging"],
)
def test_a_traceback_follows_its_line(logger: str) -> None:
    lines = logged(
        "info",
        f"import logging, structlog\nlog = {logger}\ntry:\n    1 / 0\nexcept ArithmeticError:\n"
        "    log.exception('went wrong')\n",
    )
    assert parts(lines[0])[2] == "went wrong"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_loggers_made_before_the_configuration_speak_too() -> None:
    program = (
        "import structlog\n"
        "log = structlog.get_logger('early')\n"
        "from ferry_wire.logs import configure_logging\nconfigure_logging('info')\n"
        "log.info('here')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert parts(ended.stderr.strip())[1:] == ("early", "here")


def test_an_exception_given_as_a_value_is_shown() -> None:
    lines = logged(
        "info",
        "import structlog\nstructlog.get_logger('host').error('a task failed', exc_info=ValueError('bad'))",
    )
    assert parts(lines[0])[2] == "a task failed"
    assert lines[-1] == "ValueError: bad"
