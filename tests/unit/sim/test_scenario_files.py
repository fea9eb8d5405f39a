"""What a scenario file may say; what else it says is refused with its line, before anything runs."""

import json
from typing import Any

import pytest
import yaml

from ferry_sim.scenarios import document, model, schema
from ferry_sim.scenarios.document import Malformed
from ferry_types.roles import Failback
from ferry_types.vms import Processor

SMALL: dict[str, Any] = {
    "title": "a title",
    "shows": "what",
    "rule": "a rule",
    "nodes": {"n1": {}, "n2": {}},
    "vms": {"a": {"node": "n1"}},
    "steps": ["power n1 off"],
    "end": {"nodes": {"n1": "down"}},
}


def load(**changes: Any) -> model.Scenario:
    return model.load(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(Malformed) as raised:
        model.load(text)
    return raised.value.problems


def problem(**changes: Any) -> str:
    return problems(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))[0]


def test_what_is_not_said_has_a_default() -> None:
    scenario = load()
    assert (scenario.era, scenario.profile, scenario.witness, scenario.within) == (
        "2012r2",
        "fast",
        True,
        30.0,
    )
    assert scenario.nodes["n2"].capacity.memory_bytes == 256 * 2**20
    assert scenario.vms["a"].spec("a").memory_bytes == 16 * 2**20


def test_quantities_have_units_and_words_need_no_quotes() -> None:
    text = """
title: t
shows: s
rule: r
era: 2012
within: 1m
nodes:
  n1: {memory: 1GiB, processor: amd:3, switches: [a, b]}
  n2:
vms:
  a: {memory: 64MiB, failback: off, start_delay: 250ms}
  b: {failback: {from: 22, until: 5}}
steps: [network n1 off]
end:
  vms: {a: {state: off, node: none}}
"""
    scenario = model.load(text)
    assert scenario.era == "2012"
    assert scenario.within == 60.0
    assert scenario.nodes["n1"].processor == Processor("amd", 3)
    assert scenario.vms["a"].rules.failback is Failback.OFF
    assert scenario.vms["a"].rules.start_delay_s == 0.25
    assert (scenario.vms["b"].rules.failback, scenario.vms["b"].rules.failback_until_hour) == ("window", 5)
    assert scenario.end.vms["a"].state == ("off",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": ["power n9 off"]}, "line 11: steps[0]: there is no node n9: the file has n1, n2"),
        ({"steps": ["vm stop x"]}, "steps[0]: there is no VM x: the file has a"),
        ({"steps": ["vm migrate a to n9"]}, "there is no node n9"),
        ({"steps": ["vm set a possible=n1,n9"]}, "there is no node n9"),
        ({"steps": ["rule add a preferred=n9"]}, "there is no node n9"),
        ({"steps": ["network n1 off to n9"]}, "there is no node n9"),
        ({"steps": ["wait for x running"]}, "there is no node or VM x"),
        ({"steps": ["nic n9 live down"]}, "there is no node n9"),
        ({"steps": ["nic n1 live down"]}, "node n1 has no NIC live: it has none"),
        (
            {"nodes": {"n1": {"nics": {"live": "lan"}}, "n2": {}}},
            "nodes.n1.nics.live: there is no network lan",
        ),
        ({"vms": {"a": {"node": "n9"}}}, "vms.a.node: there is no node n9"),
        ({"vms": {"a": {"possible": ["n1", "n9"]}}}, "vms.a.possible[1]: there is no node n9"),
        ({"end": {"vms": {"x": {"state": "running"}}}}, "end.vms.x: there is no VM x"),
        ({"end": {"vms": {"a": {"node": "n9"}}}}, "end.vms.a.node: there is no node n9"),
        ({"end": {"nodes": {"n9": "up"}}}, "end.nodes.n9: there is no node n9"),
        ({"events": [{"vm": "x"}]}, "events[0].vm: there is no VM x"),
        ({"no_events": [{"node": "n9"}]}, "no_events[0].node: there is no node n9"),
        ({"moves": [{"vm": "a", "to": "n9"}]}, "moves[0].to: there is no node n9"),
        ({"uninterrupted": ["x"]}, "uninterrupted[0]: there is no VM x"),
    ],
)
def test_unknown_names_are_refused_by_place_and_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Malformed) as raised:
        load(**changes)
    assert said in raised.value.problems[0]
    assert raised.value.rule == "known names"


def test_a_vm_exists_from_the_step_on_that_creates_it() -> None:
    load(steps=["vm create b", "vm stop b"], end={"vms": {"b": {"state": "off"}}})
    assert "no VM b" in problem(steps=["vm stop b", "vm create b"])


def test_a_step_that_is_to_be_refused_may_name_what_does_not_exist() -> None:
    load(steps=[{"step": "vm stop x", "refused": "not_found"}])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": []}, "steps:"),
        ({"steps": ["fly n1"]}, "steps[0].step: there is no step 'fly': a step begins with power, kill"),
        ({"title": ""}, "title:"),
        ({"steps": ["nic n1 down"]}, "write it as: nic NODE NIC up|down"),
        ({"steps": ["nic n1 live off"]}, "nic NODE NIC up|down"),
        ({"networks": {"live": "lan"}}, "networks.live:"),
        ({"nodes": {}}, "nodes:"),
        ({"nodes": {"coordinator": {}}}, "no node may be named coordinator"),
        ({"nodes": {"a": {}, "n1": {}}}, "a is both a node and a VM"),
        ({"nodes": {"n1": {"memory": "1MiB"}, "n2": {}}}, "node n1 has too little memory"),
        ({"nodes": {"n1": {"processor": "intel"}, "n2": {}}}, "nodes.n1.processor: 'intel' is no processor"),
        ({"nodes": {"n 1": {}}}, "nodes.n 1"),
        ({"vms": {"a": {"memory": "5 apples"}}}, "vms.a.memory: '5 apples' has no unit of a size"),
        ({"vms": {"a": {"colour": "red"}}}, "vms.a.colour: there is no such field"),
        ({"vms": {"a": {"failback": "soon"}}}, "vms.a.failback: 'soon' is not a failback: off, now"),
        ({"vms": {"a": {"workload": "games"}}}, "vms.a.workload: 'games' is not one of idle"),
        ({"vms": {"a": {"anti_affinity": ["x", "x"]}}}, "vms.a: anti-affinity class x is named twice"),
        ({"era": "2003"}, "era:"),
        ({"era": "2016"}, "give resiliency_period in era 2016, and in no other"),
        ({"wall_clock": "2026-01-01T12:00:00"}, "wall_clock: write a time with its zone"),
        ({"events": [{}]}, "events[0]: name at least one of id"),
        ({"events": [{"message": "("}]}, "events[0].message: '(' is not a regular expression"),
        ({"end": {}}, "nothing is expected"),
        ({"end": {"nodes": {"n1": "asleep"}}}, "'asleep' is not one of up, down"),
        ({"seed": -1}, "seed:"),
    ],
)
def test_what_is_malformed_is_refused_by_field(changes: dict[str, Any], said: str) -> None:
    assert said in problem(**changes)


def test_several_problems_are_told_with_their_lines() -> None:
    told = problems(
        "title: t\nshows: s\nrule: r\nnodes: {n1: }\nsteps: [fly]\nera: x\nend: {nodes: {n1: up}}\n"
    )
    assert [each.split(":")[0] for each in told] == ["line 6", "line 5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("title: [", "it is not YAML"),
        ("title: a\ntitle: b\n", "line 2: title is there twice"),
        ("title: &x a\nshows: *x\n", "line 1: anchors and references"),
        ("title: !!python/object/apply:os.system [ls]\n", "tags such as"),
        ("title: !secret x\n", "tags such as !secret"),
        ("? [a]\n: b\n", "a name is a word"),
        ("a: 1\n---\nb: 2\n", "it is not YAML"),
        ("[" * 5000, "line 1: it is nested too deeply"),
        ("- a\n- b\n", "line 1: write a map of fields here"),
    ],
)
def test_only_plain_yaml_is_read(text: str, said: str) -> None:
    assert said in problems(text)[0]


def test_words_of_older_yaml_are_words() -> None:
    value = document.parse("a: on\nb: no\nc: 12:30\nd: 2026-01-01\ne: true\nf: 1.5\ng: ~\nh: '5'\n").value
    assert value == {
        "a": "on", "b": "no", "c": "12:30", "d": "2026-01-01", "e": True, "f": 1.5, "g": None, "h": "5"
    }  # fmt: skip


def test_a_file_has_a_bound(tmp_path: Any) -> None:
    file = tmp_path / "large.yaml"
    file.write_bytes(b"#" * (document.BYTES_MAX + 1))
    with pytest.raises(Malformed, match="too many for such a file"):
        model.read(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(Malformed, match="not UTF-8"):
        model.read(file)


def test_the_published_schema_is_that_of_the_models() -> None:
    assert schema.published() == schema.make(), (
        "python -m ferry_sim.scenarios.schema > coordinator/ferry_sim/scenarios/scenario.schema.json"
    )
    published = json.loads(schema.published())
    assert published["additionalProperties"] is False
    assert {"title", "shows", "rule", "nodes", "steps"} == set(published["required"])
