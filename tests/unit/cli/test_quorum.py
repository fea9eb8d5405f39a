"""``ferry quorum``: what it asks of the coordinator and what it prints."""

from typing import Any

import pytest

from ferry.v1 import admin_pb2
from ferry_cli.main import execute
from ferry_types.errors import FerryError, refused


@pytest.fixture
def quorum(cluster: Any) -> admin_pb2.Quorum:
    cluster.quorum = admin_pb2.Quorum(
        mode="file share witness",
        dynamic=True,
        witness="127.0.0.1:7010",
        number=7,
        majority=2,
        votes=[
            admin_pb2.Vote(name="node1", kind="node", state="up", has_vote=True),
            admin_pb2.Vote(name="node2", kind="node", state="up", has_vote=True),
            admin_pb2.Vote(name="node3", kind="node", state="down"),
            admin_pb2.Vote(name="witness", kind="witness", state="answers", has_vote=True),
        ],
    )
    quorum: admin_pb2.Quorum = cluster.quorum
    return quorum


@pytest.mark.parametrize("noun", [("quorum",), ("cluster", "quorum")], ids=" ".join)
async def test_show_prints_who_has_a_vote(
    ferry: Any, quorum: admin_pb2.Quorum, noun: tuple[str, ...]
) -> None:
    shown = await ferry(*noun, "show")
    assert (shown.code, shown.err) == (0, "")
    lines = [line.split() for line in shown.out.splitlines()]
    for line in (
        ["mode", "file", "share", "witness"],
        ["votes", "dynamic"],
        ["witness", "127.0.0.1:7010"],
        ["majority", "2", "of", "3"],
        ["vote", "set", "7"],
        ["NAME", "KIND", "STATE", "VOTE"],
        ["node2", "node", "up", "yes"],
        ["node3", "node", "down", "no"],
        ["witness", "witness", "answers", "yes"],
    ):
        assert line in lines
    assert "forced" not in shown.out
    assert "judgement" not in shown.out


async def test_show_tells_what_is_out_of_the_ordinary(ferry: Any, quorum: admin_pb2.Quorum) -> None:
    quorum.forced = True
    quorum.under_judgement.extend(["node2", "node3"])
    quorum.reason = "no majority answers"
    shown = await ferry("quorum", "show")
    for words in ("overridden", "node2, node3", "no majority answers"):
        assert words in shown.out


async def test_show_is_an_object_for_programs(ferry: Any, quorum: admin_pb2.Quorum) -> None:
    shown = await ferry("quorum", "show", "-o", "json")
    assert shown.code == 0
    assert (shown.document["witness"], shown.document["majority"]) == ("127.0.0.1:7010", 2)
    assert shown.document["votes"][2] == {"name": "node3", "kind": "node", "state": "down", "has_vote": False}


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (("--witness", "none"), admin_pb2.QuorumChange(witness="")),
        (("--dynamic",), admin_pb2.QuorumChange(dynamic=True)),
        (("--witness", "w1:7010", "--static"), admin_pb2.QuorumChange(witness="w1:7010", dynamic=False)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_set_sends_what_was_named_and_nothing_else(
    ferry: Any,
    cluster: Any,
    quorum: admin_pb2.Quorum,
    options: tuple[str, ...],
    change: admin_pb2.QuorumChange,
) -> None:
    ran = await ferry("quorum", "set", *options, "-o", "json")
    assert (ran.code, ran.document["mode"]) == (0, "file share witness")
    assert cluster.requests == [change]


async def test_set_says_what_is_set_and_what_is_under_way(ferry: Any, quorum: admin_pb2.Quorum) -> None:
    quorum.reason = "vote set 8 is being recorded"
    ran = await ferry("quorum", "set", "--witness", "127.0.0.1:7010")
    assert ran.out == "quorum: file share witness at 127.0.0.1:7010, dynamic votes\n"
    assert ran.err == "vote set 8 is being recorded\n"


async def test_a_refusal_is_told(ferry: Any, cluster: Any) -> None:
    cluster.refusals["SetQuorum"] = FerryError(
        refused("era", "static votes alone in 2008R2", "choose another era")
    )
    ran = await ferry("quorum", "set", "--dynamic", "-o", "json")
    assert (ran.code, ran.document["error"]["rule"]) == (5, "era")


@pytest.mark.parametrize(("verb", "cmdlet"), [("show", "Get-ClusterQuorum"), ("set", "Set-ClusterQuorum")])
def test_help_names_the_cmdlet(capsys: pytest.CaptureFixture[str], verb: str, cmdlet: str) -> None:
    assert execute(("quorum", verb, "--help")) == 0
    assert cmdlet in capsys.readouterr().out


def test_help_of_the_lab_names_the_witness(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("kill", "start"):
        assert execute(("lab", verb, "--help")) == 0
        assert "witness" in capsys.readouterr().out
