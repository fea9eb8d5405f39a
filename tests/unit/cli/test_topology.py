"""What a topology file may say, what is wrong with others, and what a lab makes of it."""

import json
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Ferry

from ferry_cli.lab.state import Lab, LabNode, LabSpec, read_lab, write_lab
from ferry_cli.topology import model, schema
from ferry_cli.topology.starting import agent_options
from ferry_sim.scenarios.document import Malformed
from ferry_types.links import TrafficClass
from ferry_types.network_words import parse_nic, parse_qos, parse_team
from ferry_types.networks import Network, NetworkRole, Team, TeamMode
from ferry_types.qos import QosPolicy

EXAMPLE = Path(__file__).parents[2] / "topologies" / "annotated-example.yaml"

SMALL = """\
networks:
  live: {role: migration}
  front: {role: client}
hosts:
  n1:
    nics:
      live: {network: live}
      front: {network: front}
  n2:
    teams: {t: static}
    nics:
      live: {network: live, team: t}
vms:
  a: {node: n1}
"""


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(Malformed) as raised:
        model.load(text)
    return raised.value.problems


def test_the_example_is_sound_and_says_what_it_says() -> None:
    topology = model.read(EXAMPLE)
    assert topology.network_values[:3] == (
        Network("clients", NetworkRole.CLIENT),
        Network("heartbeat", NetworkRole.CLUSTER, 1000),
        Network("live", NetworkRole.MIGRATION, subnet="127.1.200.0/24"),
    )
    assert topology.team_values("node1") == (Team("front", TeamMode.DYNAMIC),)
    assert [nic.address for nic in topology.nic_values("node1")] == [
        "127.1.1.1",
        "127.1.1.2",
        "127.1.100.1",
        "127.1.200.1",
        "127.1.1.5",
    ]
    assert topology.nic_values("node2")[2].address == "127.1.200.2"
    assert topology.vms["web1"].rules.preferred_owners == ("node1", "node2")
    assert topology.vms["web1"].spec("web1").memory_bytes == 16 * 2**20


def test_an_agent_is_told_what_its_host_is() -> None:
    topology = model.read(EXAMPLE)
    options = agent_options(topology, "node1")
    assert dict(options)["memory"] == "1073741824B"
    assert dict(options)["switches"] == "external,lab"
    assert dict(options)["migration_option"] == "direct"
    nics = tuple(parse_nic(value) for option, value in options if option == "nic")
    assert nics == topology.nic_values("node1")
    assert [parse_team(value) for option, value in options if option == "team"] == [
        Team("front", TeamMode.DYNAMIC)
    ]
    assert {option for option, _ in agent_options(model.load(SMALL), "n1")} == {"nic"}, "the rest is default"


def test_a_host_has_what_all_have_of_a_class_unless_it_says_otherwise() -> None:
    for_all = "qos: {migration: {limit: 400Mbit/s, weight: 40}, client: {weight: 60}}\n"
    own = SMALL.replace("  n2:\n", "  n3:\n  n2:\n    qos: {migration: {limit: 1Gbit/s}}\n")
    topology = model.load(for_all + own)
    client = QosPolicy(TrafficClass.CLIENT, weight=60)

    def told(host: str) -> list[QosPolicy]:
        return [parse_qos(value) for option, value in agent_options(topology, host) if option == "qos"]

    assert told("n1") == [QosPolicy(TrafficClass.MIGRATION, 50_000_000, 40), client]
    assert told("n2") == [QosPolicy(TrafficClass.MIGRATION, 125_000_000), client]
    assert told("n3") == [], "it has no NIC"


def test_weights_of_a_host_count_with_those_of_all() -> None:
    text = "qos: {migration: {weight: 60}}\n" + SMALL.replace(
        "  n2:\n", "  n2:\n    qos: {csv: {weight: 41}}\n"
    )
    (said,) = problems(text)
    assert said.startswith("line 11: hosts.n2.qos: the weights of the classes add up to 101")


def test_limits_for_all_need_somebody_who_has_a_nic() -> None:
    (said,) = problems("qos: {migration: {weight: 60}}\nhosts: {n1: }\n")
    assert said == "line 1: qos: no host has a NIC that it could hold on"


def test_the_notes_of_a_lab_keep_networks_and_repeated_options(tmp_path: Path) -> None:
    nodes = (LabNode("n1", (("nic", "name=a"), ("nic", "name=b"))),)
    lab = Lab(LabSpec(nodes=nodes, networks=("name=live,role=migration",)))
    write_lab(tmp_path, lab)
    assert read_lab(tmp_path) == lab


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "{network: front}",
            "{network: back}",
            "line 8: hosts.n1.nics.front.network: there is no network back",
        ),
        ("role: client", "role: lan", "line 3: networks.front.role:"),
        ("{role: migration}", "{role: migration, metric: 0}", "line 2: networks.live.metric:"),
        ("{role: client}", "{role: client, subnet: 10.0.0.1/8}", "is no subnet: write it as 10.0.1.0/24"),
        ("{role: client}", "{role: client, colour: red}", "networks.front.colour: there is no such field"),
        ("{network: front}", "{network: front, rate: 0}", "line 8: hosts.n1.nics.front.rate: a rate of zero"),
        ("{network: front}", "{network: front, rate: 0Gbit/s}", "a rate of zero lets nothing through"),
        (
            "{network: front}",
            "{network: front, rate: fast}",
            "hosts.n1.nics.front.rate: 'fast' is not a rate",
        ),
        ("{network: front}", "{network: front, latency: 2s}", "hosts.n1.nics.front.latency:"),
        ("{network: front}", "{network: front, mtu: 100}", "hosts.n1.nics.front.mtu:"),
        ("{network: front}", "{network: front, mtu: 9217}", "hosts.n1.nics.front.mtu:"),
        ("{network: front}", "{network: front, address: 10.0.0.300}", "is no IP address"),
        ("{network: front}", "{network: front, speed: 1}", "nics.front.speed: there is no such field"),
        ("{network: front}", "{address: 127.9.9.9}", "nics.front.network: it is missing"),
        (
            "team: t}",
            "team: t, rdma: true}",
            "line 12: hosts.n2.nics.live.rdma: it has RDMA and is in team t",
        ),
        ("team: t}", "team: u}", "hosts.n2.nics.live.team: host n2 has no team u: it has t"),
        ("team: t}", "mtu: 1500}", "line 10: hosts.n2.teams.t: no NIC of host n2 is in team t"),
        ("  n1:\n", "  n1:\n    migration_option: rdma\n", "line 6: hosts.n1.migration_option:"),
        ("t: static", "t: lacp", "line 10: hosts.n2.teams.t:"),
        (
            "team: t}",
            "team: t, mtu: 9000}",
            "line 12: hosts.n2.nics.live.mtu: jumbo frames must agree end to end on network live: live of n1 "
            "has an MTU of 1500, live of n2 of 9000",
        ),
        (
            "team: t}\n",
            "team: t}\n      two: {network: front, team: t}\n",
            "line 10: hosts.n2.teams.t: its NICs are of several networks: live of live, two of front",
        ),
        ("      front:", "      live:", "line 8: live is there twice"),
        ("node: n1", "node: n9", "line 14: vms.a.node: there is no host n9: the file has n1, n2"),
        ("node: n1", "preferred: [n1, n9]", "vms.a.preferred[1]: there is no host n9"),
        ("node: n1", "switch: lab", "vms.a.switch: no virtual switch lab is on n1, n2"),
        ("node: n1", "memory: 1MiB", "line 14: vms.a.memory: it is too small: at least 4194304"),
        ("node: n1", "memory: 0", "line 14: vms.a.memory: it is too small"),
        ("node: n1", "node: n1, possible: [n2]", "vms.a.node: n1 is none of its possible owners: n2"),
        (
            "node: n1",
            "possible: [n2], preferred: [n1]",
            "vms.a.preferred[0]: n1 is none of its possible owners: n2",
        ),
        ("node: n1", "failback: now", "vms.a.failback: it has no preferred owner to go back to"),
        ("node: n1", "priority: urgent", "vms.a.priority: write one of 'high', 'medium', 'low' or 'none'"),
        ("  n1:\n", "  n1:\n    memory: 100TiB\n", "line 6: hosts.n1.memory: it is too large"),
        ("  n1:\n", "  n1:\n    memory: -1\n", "line 6: hosts.n1.memory: '-1' is not a size"),
        ("  n1:\n", "  n1:\n    processors: true\n", "line 6: hosts.n1.processors: write a whole number"),
        ("  n1:\n", "  n1:\n    processors: 0\n", "line 6: hosts.n1.processors: it is too small"),
        ("  n1:\n", "  n1:\n    migration_limit: 99\n", "line 6: hosts.n1.migration_limit: it is too large"),
        (
            "  n1:\n",
            "  n1:\n    processor: intel\n",
            "line 6: hosts.n1.processor: 'intel' is no processor model",
        ),
        ("  n1:\n", "  n1:\n    switches: [a b]\n", "line 6: hosts.n1.switches[0]: name 'a b' is not valid"),
        ("  n1:\n", "  n1:\n    domain: a b\n", "line 6: hosts.n1.domain: name 'a b' is not valid"),
        ("  n1:\n", "  n1:\n    level: 2025\n", "line 6: hosts.n1.level: write one of"),
        ("{network: front}", "{network: front, rate: -5Gbit/s}", "front.rate: '-5Gbit/s' is not a rate"),
        ("{network: front}", "{network: front, rate: 401Gbit/s}", "from 8kbit/s to 400Gbit/s"),
        ("{network: front}", "{network: front, rate: 1B/s}", "from 8kbit/s to 400Gbit/s"),
        ("{network: front}", "{network: front, rate: " + "9" * 400 + "Gbit/s}", "it is too large"),
        ("{network: front}", "{network: front, rate: true}", "front.rate: rate True is no rate"),
        ("{network: front}", "{network: front, latency: -1ms}", "front.latency: '-1ms' is not a duration"),
        ("{network: front}", "{network: front, mtu: jumbo}", "front.mtu: write a whole number here"),
        ("{network: front}", "{network: front, rdma: maybe}", "front.rdma: write true or false here"),
        ("{network: front}", "{network: front, address: 224.0.0.1}", "is not that of one adapter"),
        ("{network: front}", "{network: front, address: 0.0.0.0}", "is not that of one adapter"),
        ("{network: front}", "{network: front, address: 127.1.1.1:80}", "without port"),
        ("{network: front}", "", "line 8: hosts.n1.nics.front: write a map of fields here"),
        ("{network: front}", "*x", "line 8: anchors and references are not used here"),
        ("{network: front}", "!!python/object:os.system {}", "line 8: tags such as"),
        (
            "{role: client}",
            "{role: client, metric: low}",
            "networks.front.metric: write a whole number",
        ),
        ("  front: {role", "  fr ont: {role", "line 3: networks.fr ont: name 'fr ont' is not valid"),
        ("  a: {", "  n1: {", "vms.n1: n1 is both a host and a VM"),
        ("  n1:\n", "  witness:\n", "line 5: hosts.witness: no host may be named witness"),
        (
            "vms:",
            "qos: {csv: {limit: 0}}\nvms:",
            "line 13: qos.csv.limit: a limit of zero lets nothing through",
        ),
        ("vms:", "qos: {csv: {weight: 0}}\nvms:", "line 13: qos.csv.weight: a weight of 0 is out of range"),
        ("vms:", "qos: {csv: {}}\nvms:", "line 13: qos.csv: give it a limit, a weight or both"),
        ("vms:", "qos: {voice: {weight: 1}}\nvms:", "line 13: qos.voice: "),
        (
            "vms:",
            "qos: {csv: {weight: 60}, client: {weight: 41}}\nvms:",
            "line 13: qos: the weights of the classes add up to 101",
        ),
        (
            "  n2:\n",
            "  n3:\n    qos: {csv: {weight: 60}}\n  n2:\n",
            "line 10: hosts.n3.qos: class csv has a limit or a weight, and the host no NIC",
        ),
        ("vms:", "clusters:", "clusters: there is no such field"),
        ("networks:\n", "scale: 0\nnetworks:\n", "line 1: scale:"),
        ("networks:\n", "scale: -2\nnetworks:\n", "line 1: scale:"),
        ("networks:\n", "scale: 257\nnetworks:\n", "line 1: scale:"),
        ("networks:\n", "scale: half\nnetworks:\n", "line 1: scale:"),
        (
            "networks:\n",
            "scale: 128\nnetworks:\n",
            "line 15: vms.a.memory: a has 256 MiB of memory: at scale 128",
        ),
        ("{role: client}", "&x {role: client}", "line 3: anchors and references are not used here"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_field(old: str, new: str, said: str) -> None:
    assert SMALL.count(old) == 1
    told = problems(SMALL.replace(old, new))
    assert any(said in each for each in told), told


def test_what_does_not_fit_the_scale_is_told_whoever_has_said_it() -> None:
    slow = SMALL.replace("{network: front}", "{network: front, rate: 100kbit/s}")
    odd = slow.replace("{node: n1}", "{node: n1, memory: 262148KiB}")
    said = (
        "line 8: hosts.n1.nics.front.rate: rate of 100kbit/s of NIC front is too low for scale 64",
        "line 14: vms.a.memory: memory of 268439552 bytes of a is not a multiple of 256 KiB",
    )
    assert model.load(slow).scale is None
    with pytest.raises(Malformed) as raised:
        model.load(odd, 64)
    assert raised.value.rule == "scale"
    for problem, start in zip(raised.value.problems, said, strict=True):
        assert problem.startswith(start), problem


def test_addresses_belong_to_one_nic_and_to_their_subnet() -> None:
    text = SMALL.replace("{role: migration}", "{role: migration, subnet: 127.5.0.0/24}")
    text = text.replace("live: {network: live}", "live: {network: live, address: 127.5.0.7}")
    twice = text.replace("network: live, team", "network: live, address: 127.5.0.7, team")
    (said,) = problems(twice)
    assert said == "line 12: hosts.n2.nics.live.address: 127.5.0.7 is the address of live of n1, too"
    outside = text.replace("network: live, team", "network: live, address: 127.6.0.7, team")
    assert "127.6.0.7 is not in 127.5.0.0/24, the subnet of live" in problems(outside)[0]
    own = text.replace("{network: front}", "{network: front, address: 127.0.0.1}")
    assert "at 127.0.0.1 the lab's processes listen themselves" in problems(own)[0]
    assert model.load(text).nic_values("n2")[0].address == "127.5.0.1"


def test_addresses_are_dealt_out_of_what_is_free() -> None:
    taken = SMALL.replace("{network: front}", "{network: front, address: 127.1.1.1}")
    assert [nic.address for nic in model.load(taken).nic_values("n1")] == ["127.1.1.2", "127.1.1.1"]
    tight = SMALL.replace("{role: migration}", "{role: migration, subnet: 127.5.0.8/32}")
    assert "line 12: hosts.n2.nics.live: subnet 127.5.0.8/32 has no address left" in problems(tight)[0]
    foreign = SMALL.replace("{role: migration}", "{role: migration, subnet: 10.0.0.0/24}")
    assert "give it an address: a lab deals out those of 127.0.0.0/8" in problems(foreign)[0]


def test_an_address_in_other_clothes_is_the_same_address() -> None:
    text = SMALL.replace("{network: front}", "{network: front, address: 127.5.0.7}")
    text = text.replace("network: live, team", 'network: live, address: "::ffff:127.5.0.7", team')
    (said,) = problems(text)
    assert said == "line 12: hosts.n2.nics.live.address: 127.5.0.7 is the address of front of n1, too"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("# nothing but this\n", "it is empty"),
        ("hello\n", "line 1: write a map of fields here"),
        ("- a\n", "line 1: write a map of fields here"),
        ("hosts: {}\n", "line 1: hosts: these are too few: at least 1"),
        ("hosts:\n", "line 1: hosts: write a map of names here"),
        ("hosts: {" + ", ".join(f"h{n}: " for n in range(65)) + "}\n", "line 1: hosts: these are too many"),
        ("&a [*a]\n", "line 1: anchors and references are not used here"),
        ("a: &a\n  b: *a\n", "line 1: anchors and references are not used here"),
        ("hosts: " + "[" * 100 + "]" * 100, "line 1: it is nested too deeply"),
        ("? [a, b]\n: c\n", "line 1: a name is a word, not a list or a map"),
        ("hosts:\n  n1: \0\n", "line 2: it is not YAML: character 0x0 cannot be in it"),
        ("hosts: {n1: \n", "line 2: it is not YAML"),
        ("hosts: {n1: }\n---\nhosts: {n1: }\n", "line 2: it is not YAML"),
    ],
)
def test_what_is_no_topology_at_all_is_told_with_its_line(text: str, said: str) -> None:
    assert any(said in each for each in problems(text)), problems(text)


def test_what_is_no_text_or_too_large_is_told(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    for contents, said in ((bytes(range(256)), "byte 128 is not UTF-8 text"), (b"#" * 2**21, "too many for")):
        file.write_bytes(contents)
        with pytest.raises(Malformed, match=said):
            model.read(file)


def test_overlapping_subnets_are_told() -> None:
    text = SMALL.replace("{role: migration}", "{role: migration, subnet: 127.5.0.0/16}")
    text = text.replace("{role: client}", "{role: client, subnet: 127.5.7.0/24}")
    assert "line 1: networks: subnets of networks live" in problems(text)[0]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = SMALL.replace("{network: front}", "{network: back}").replace("node: n1", "node: n9")
    assert [each.split(":")[0] for each in problems(text)] == ["line 8", "line 14"]
    fields = (
        SMALL.replace("role: client", "role: x").replace("t: static", "t: x").replace("node: n1", "mem: 1")
    )
    assert [each.split(":")[0] for each in problems(fields)] == ["line 3", "line 10", "line 14"]


async def test_the_command_refuses_a_bad_file_before_it_starts_anything(ferry: Ferry, tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(SMALL.replace("network: front}", "network: back}"), encoding="utf-8")
    ran = await ferry("lab", "up", "--topology", str(file), "--dir", str(tmp_path / "lab"), "-o", "json")
    assert ran.code == 2
    assert ran.document["error"]["rule"] == "known network"
    assert f"{file}: line 8: hosts.n1.nics.front.network" in ran.document["error"]["message"]
    assert not (tmp_path / "lab").exists()
    both = await ferry("lab", "up", "--topology", str(file), "--hosts", "3")
    assert both.code == 2
    assert "leave --hosts out" in both.err
    file.write_text("scale: 8\n" + SMALL, encoding="utf-8")
    other = await ferry("lab", "up", "--topology", str(file), "--scale", "4")
    assert other.code == 2
    assert "the topology file says scale 8" in other.err
    for scale in ("0", "half"):
        assert (await ferry("lab", "up", f"--scale={scale}")).code == 2
    assert (await ferry("lab", "up", "--topology", str(tmp_path / "none.yaml"))).code == 1
    assert json.loads((await ferry("lab", "schema")).out) == json.loads(schema.published())


def test_the_published_schema_is_that_of_the_models() -> None:
    assert schema.published() == schema.make(), (
        "python -m ferry_cli.topology.schema > coordinator/ferry_cli/topology/topology.schema.json"
    )
    published = json.loads(schema.published())
    assert published["additionalProperties"] is False
    assert published["required"] == ["hosts"]
