"""Settings: options before environment before file before defaults; what is wrong is said in one line."""

import os
from pathlib import Path

import pytest

from ferry_agent.settings import AgentSettings, load_settings
from ferry_types.limits import HOST_MEMORY_BYTES_DEFAULT
from ferry_types.links import TrafficClass
from ferry_types.networks import Nic, Team, TeamMode
from ferry_types.qos import QosPolicy

REQUIRED = ("--name", "node1", "--dir", "data", "--coordinator", "127.0.0.1:7000")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("FERRY_"):
            monkeypatch.delenv(variable)


def load(*options: str) -> AgentSettings:
    return load_settings((*REQUIRED, *options))


def complaint(capsys: pytest.CaptureFixture[str], *options: str, code: int = 2) -> str:
    with pytest.raises(SystemExit) as ended:
        load(*options)
    assert ended.value.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.startswith("ferry agent run: ")
    return captured.err


def test_the_defaults() -> None:
    settings = load()
    assert (settings.name, settings.dir, settings.coordinator) == ("node1", Path("data"), "127.0.0.1:7000")
    assert settings.listen == settings.echo_listen == "127.0.0.1:0"
    assert settings.memory == HOST_MEMORY_BYTES_DEFAULT
    assert settings.migration_limit == 2
    assert settings.processors == os.cpu_count()
    assert not settings.failpoints
    assert (settings.broker, settings.metrics_listen) == ("", "")
    assert (settings.trace, settings.address_file) == (None, None)
    assert settings.log_level == "info"


def test_every_option_is_taken() -> None:
    settings = load(
        *("--listen", "10.0.0.2:7001", "--advertise", "node1.example", "--echo-listen", "10.0.0.3:7002"),
        *("--broker", "10.0.0.9:1883", "--memory", "1.5GiB", "--processors", "64", "--migration-limit", "4"),
        *("--failpoints", "--trace", "t", "--metrics-listen", "127.0.0.1:9100", "--address-file", "a"),
        *("--log-level", "debug"),
    )
    assert settings.listen == "10.0.0.2:7001"
    assert settings.advertise == "node1.example"
    assert settings.echo_listen == "10.0.0.3:7002"
    assert settings.broker == "10.0.0.9:1883"
    assert settings.memory == 3 * 2**29
    assert (settings.processors, settings.migration_limit) == (64, 4)
    assert settings.failpoints
    assert (settings.trace, settings.address_file) == (Path("t"), Path("a"))
    assert settings.metrics_listen == "127.0.0.1:9100"
    assert settings.log_level == "debug"


def test_options_win_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('memory = "1GiB"\nmigration-limit = 3\nlog-level = "error"\nfailpoints = true\n')
    monkeypatch.setenv("FERRY_AGENT_MEMORY", "2GiB")
    monkeypatch.setenv("FERRY_AGENT_MIGRATION_LIMIT", "4")
    settings = load("--config", str(file), "--memory", "3GiB")
    assert settings.memory == 3 * 2**30
    assert settings.migration_limit == 4
    assert settings.log_level == "error"
    assert settings.failpoints


def test_everything_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(f'dir = "{tmp_path}"\nmemory = 1073741824\n')
    for name, value in {"NAME": "n7", "CONFIG": str(file), "FAILPOINTS": "1", "TRACE": ""}.items():
        monkeypatch.setenv(f"FERRY_AGENT_{name}", value)
    monkeypatch.setenv("FERRY_COORDINATOR", "10.0.0.1:7000")
    settings = load_settings(())
    assert (settings.name, settings.dir, settings.memory) == ("n7", tmp_path, 2**30)
    assert settings.coordinator == "10.0.0.1:7000"
    assert settings.failpoints
    assert settings.trace is None


def test_the_coordinator_of_the_option_wins_over_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_COORDINATOR", "10.0.0.1:7000")
    assert load().coordinator == "127.0.0.1:7000"


# --- addresses that peers use -------------------------------------------------------------------


def test_the_echo_port_is_beside_the_grpc_port() -> None:
    assert load("--listen", "10.0.0.2:7001").echo_listen == "10.0.0.2:0"
    assert load("--listen", "[::1]:7001").echo_listen == "[::1]:0"


@pytest.mark.parametrize(
    ("listen", "advertise", "advertised"),
    [
        ("10.0.0.2:7001", "", "10.0.0.2:7001"),
        ("0.0.0.0:7001", "10.0.0.2", "10.0.0.2:7001"),
        ("0.0.0.0:7001", "10.0.0.2:7001", "10.0.0.2:7001"),
        ("[::]:7001", "[fd00::2]", "[fd00::2]:7001"),
        ("0.0.0.0:7001", "node1.example", "node1.example:7001"),
    ],
)
def test_peers_reach_it_under_what_it_advertises(listen: str, advertise: str, advertised: str) -> None:
    assert load("--listen", listen, "--advertise", advertise).advertised(listen) == advertised


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--listen", "0.0.0.0:7001"), "give --advertise"),
        (("--listen", "[::]:7001"), "give --advertise"),
        (("--echo-listen", "0.0.0.0:0"), "give --advertise"),
        (("--advertise", "0.0.0.0"), "means every address"),
        (("--listen", "0.0.0.0:7001", "--advertise", "10.0.0.2:7002"), "names port 7002"),
        (("--advertise", "a b"), "--advertise"),
        (("--advertise", "fd00::2"), "--advertise"),
    ],
)
def test_what_peers_could_not_reach_is_refused(
    options: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in complaint(capsys, *options)


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--name", "a/b"),
        ("--name", ""),
        ("--name", "witness"),
        ("--coordinator", "nowhere"),
        ("--coordinator", "host:0"),
        ("--listen", "7000"),
        ("--echo-listen", "x"),
        ("--broker", "host"),
        ("--metrics-listen", "9100"),
        ("--memory", "lots"),
        ("--memory", "1"),
        ("--memory", "5TiB"),
        ("--memory", "-1"),
        ("--processors", "0"),
        ("--processors", "two"),
        ("--migration-limit", "0"),
        ("--migration-limit", "65"),
        ("--log-level", "loud"),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_option(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = complaint(capsys, f"{option}={value}").splitlines()
    assert told[0].startswith(f"ferry agent run: {option}: ")
    assert told[1:] == ["--help describes all options"]


def test_all_bad_values_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = complaint(capsys, "--memory", "lots", "--listen", "x")
    assert "--memory: " in told
    assert "--listen: " in told


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(())
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert all(f"{option} is required" in told for option in ("--name", "--dir", "--coordinator"))


@pytest.mark.parametrize("option", ["--colour=red", "--mem=1GiB", "--no-failpoints", "stray"])
def test_an_unknown_option_is_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"unrecognized arguments: {option}" in complaint(capsys, option)


def test_an_unknown_entry_of_the_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('colour = "red"\n')
    assert "there is no setting colour" in complaint(capsys, "--config", str(file))


def test_a_file_that_is_no_toml_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "agent.toml"
    for contents in (b"memory = ", b"\xff\xfe"):
        file.write_bytes(contents)
        assert f"{file} is not valid TOML" in complaint(capsys, "--config", str(file))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.toml"
    assert str(missing) in complaint(capsys, "--config", str(missing), code=1)


def test_help_describes_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(("--help",))
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for name, field in AgentSettings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in told
        assert field.description
    assert "FERRY_AGENT_" in told
    assert "8GiB" in told


# --- NICs -----------------------------------------------------------------------------------------

NIC = "name=live,network=migration,address=10.0.1.5,rate=10Gbit/s,latency=250us,mtu=9000,rdma=yes"


def test_nics_and_teams_come_from_options_environment_and_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    live = Nic("live", "migration", "10.0.1.5", 1_250_000_000, 0.00025, 9000, True)
    one = Nic("a", "clients", "10.0.2.5", team="t")
    two = Nic("b", "clients", "10.0.2.6", team="t")
    words = (
        "name=a,network=clients,address=10.0.2.5,team=t",
        "name=b,network=clients,address=10.0.2.6,team=t",
    )
    given = load("--nic", NIC, "--nic", words[0], "--nic", words[1], "--team", "name=t,mode=static")
    assert given.capacity.nics == (live, one, two)
    assert given.capacity.teams == (Team("t", TeamMode.STATIC),)

    file = tmp_path / "agent.toml"
    file.write_text(
        '[[nic]]\nname = "live"\nnetwork = "migration"\naddress = "10.0.1.5"\nrate = "10Gbit/s"\n'
        'latency = "250us"\nmtu = 9000\nrdma = true\n[[team]]\nname = "t"\nmode = "static"\n'
        '[[nic]]\nname = "a"\nnetwork = "clients"\naddress = "10.0.2.5"\nteam = "t"\n',
        encoding="utf-8",
    )
    assert load("--config", str(file)).capacity.nics == (live, one)

    monkeypatch.setenv("FERRY_AGENT_NIC", ";".join(words))
    monkeypatch.setenv("FERRY_AGENT_TEAM", "name=t,mode=static")
    assert load().capacity.nics == (one, two)
    assert load("--nic", NIC, "--team", "name=u,mode=dynamic", "--nic", f"{words[0][:-1]}u").nic[0] == live


def test_limits_and_weights_come_from_options_environment_and_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    migration = QosPolicy(TrafficClass.MIGRATION, 500_000_000, 40)
    client = QosPolicy(TrafficClass.CLIENT, weight=60)
    words = ("class=migration,limit=4Gbit/s,weight=40", "class=client,weight=60")
    assert load("--nic", NIC, "--qos", words[0], "--qos", words[1]).capacity.qos == (migration, client)
    file = tmp_path / "agent.toml"
    file.write_text('[[qos]]\nclass = "migration"\nlimit = "4Gbit/s"\nweight = 40\n', encoding="utf-8")
    assert load("--nic", NIC, "--config", str(file)).capacity.qos == (migration,)
    monkeypatch.setenv("FERRY_AGENT_QOS", ";".join(words))
    assert load("--nic", NIC).capacity.qos == (migration, client)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--nic", NIC, "--nic", NIC), "NIC live is there twice; give each one of its own (nic names)"),
        (("--nic", NIC, "--nic", NIC.replace("name=live", "name=b")), "(nic addresses)"),
        (("--nic", f"{NIC},team=t", "--team", "name=t,mode=static"), "(rdma in a team)"),
        (("--team", "name=t,mode=static"), "team t has no NIC"),
        (("--team", "name=t,mode=lacp"), "--team: mode 'lacp' is not one of static, dynamic"),
        (("--nic", NIC.replace("10Gbit/s", "0")), "--nic: a rate of zero lets nothing through"),
        (("--nic", NIC.replace("9000", "9217")), "MTU 9217 of NIC live is out of range: from 576 to 9216"),
        (("--nic", f"{NIC},colour=red"), "a NIC has no 'colour'"),
        (("--nic", "live"), "'live' in a NIC is not of the form name=value"),
        (("--nic", NIC, "--listen", "0.0.0.0:7", "--advertise", "10.0.1.9"), "(nic listens)"),
        (("--nic", NIC, "--qos", "class=migration,limit=0"), "--qos: a limit of zero lets nothing through"),
        (("--nic", NIC, "--qos", "class=migration,limit=1Tbit/s"), "'1Tbit/s' has no unit of a rate"),
        (("--nic", NIC, "--qos", "class=migration,limit=500Gbit/s"), "from 8kbit/s to 400Gbit/s"),
        (("--nic", NIC, "--qos", "class=migration"), "is given neither a limit nor a weight"),
        (("--nic", NIC, "--qos", "class=csv,weight=101"), "a weight of 101 is out of range: from 1 to 100"),
        (("--nic", NIC, "--qos", "class=csv,weight=0"), "a weight of 0 is out of range"),
        (("--nic", NIC, "--qos", "class=voice,weight=1"), "class 'voice' is not one of migration, csv"),
        (("--nic", NIC, "--qos", "weight=1"), "a class of traffic needs a class"),
        (("--nic", NIC, "--qos", "class=csv,weight=1", "--qos", "class=csv,weight=2"), "(qos classes)"),
        (
            ("--nic", NIC, "--qos", "class=csv,weight=60", "--qos", "class=client,weight=41"),
            "the weights of the classes add up to 101: at most 100 per cent can be shared out",
        ),
        (("--qos", "class=migration,weight=40"), "the host no NIC that it could hold on"),
        (("--nic", NIC, "--listen", "10.0.1.5:7"), "the agent's own address 10.0.1.5"),
    ],
)
def test_unsound_nics_are_refused_by_rule(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert said in complaint(capsys, *options)
