"""Processes are told apart by more than their number, and are found without any notes."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ferry_cli.lab.processes import (
    ProcessIdentity,
    RunState,
    await_state,
    exit_code,
    find_marked,
    observe,
    send_signal,
    spawn,
)

SLEEPER = (sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)")


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ProcessIdentity]:
    identity = spawn("sleeper", SLEEPER, tmp_path, tmp_path / "log")
    deadline = time.monotonic() + 10
    while not (tmp_path / "log").read_text():  # until its program runs, /proc does not show its environment
        assert time.monotonic() < deadline
        time.sleep(0.005)
    yield identity
    send_signal(identity, signal.SIGKILL)
    exit_code(identity)


async def test_a_process_is_observed_through_its_states(sleeper: ProcessIdentity) -> None:
    assert observe(sleeper) is RunState.RUNNING
    assert send_signal(sleeper, signal.SIGSTOP)
    assert await await_state([sleeper], RunState.STOPPED, 5)
    assert send_signal(sleeper, signal.SIGCONT)
    assert await await_state([sleeper], RunState.RUNNING, 5)
    assert send_signal(sleeper, signal.SIGKILL)
    assert await await_state([sleeper], RunState.DEAD, 5)
    assert exit_code(sleeper) == -signal.SIGKILL
    assert not send_signal(sleeper, signal.SIGCONT)


async def test_waiting_for_a_state_ends_at_the_deadline(sleeper: ProcessIdentity) -> None:
    assert not await await_state([sleeper], RunState.DEAD, 0.05)


def test_another_process_with_the_same_number_is_never_signalled(sleeper: ProcessIdentity) -> None:
    for other in (
        replace(sleeper, start_ticks=sleeper.start_ticks - 1),
        replace(sleeper, boot_id="another boot"),
    ):
        assert observe(other) is RunState.DEAD
        assert not send_signal(other, signal.SIGKILL)
    assert observe(sleeper) is RunState.RUNNING


def test_a_marked_process_is_found_by_its_directory(sleeper: ProcessIdentity, tmp_path: Path) -> None:
    assert find_marked(tmp_path) == [("sleeper", sleeper)]
    assert find_marked(tmp_path.parent) == []


def test_a_process_is_out_of_reach_of_the_terminal_and_of_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_AGENT_NAME", "stray")
    code = "import os; print(os.getsid(0) == os.getpid(), [k for k in os.environ if k.startswith('FERRY_')])"
    identity = spawn("teller", (sys.executable, "-c", code), tmp_path, tmp_path / "log")
    os.waitid(os.P_PID, identity.pid, os.WEXITED | os.WNOWAIT)
    assert (tmp_path / "log").read_text() == "True []\n"
    assert exit_code(identity) == 0


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    identity = spawn("brief", (sys.executable, "-c", ""), tmp_path, tmp_path / "log")
    os.waitid(os.P_PID, identity.pid, os.WEXITED | os.WNOWAIT)
    assert observe(identity) is RunState.DEAD
