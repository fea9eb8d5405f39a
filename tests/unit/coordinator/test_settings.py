"""What the coordinator's settings add to what is shared with the agent's."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ferry_coordinator.settings import load_settings
from ferry_types.eras import Era
from ferry_types.networks import Network, NetworkRole
from ferry_types.profiles import PROFILES


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("FERRY_"):
            monkeypatch.delenv(variable)


def test_the_defaults() -> None:
    settings = load_settings(("--dir", "data"))
    assert settings.cluster == "cluster"
    assert settings.dir == Path("data")
    assert settings.listen == "127.0.0.1:0"
    assert settings.timing == PROFILES["windows"]
    assert settings.era is Era.WS2012R2


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_its_timing(name: str) -> None:
    assert load_settings(("--dir", "data", "--profile", name)).timing == PROFILES[name]


@pytest.mark.parametrize(
    ("options", "lease_s"),
    [
        (("--profile", "windows"), 240.0),
        (("--profile", "fast"), 60.0),
        (("--profile", "fast", "--resiliency-period", "2s"), 2.0),
        (("--profile", "windows", "--resiliency-period", "1h"), 3600.0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_era_2016_leaves_a_silent_node_alone_for_its_resiliency_period(
    options: tuple[str, ...], lease_s: float
) -> None:
    settings = load_settings(("--dir", "data", "--era", "2016", *options))
    assert settings.timing == replace(PROFILES[settings.profile], lease_s=lease_s)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--era", "2012r2", "--resiliency-period", "60s"), "era 2012r2 has no resiliency period"),
        (("--era", "2016", "--resiliency-period", "4s"), "out of range: from 5s"),
        (("--era", "2016", "--resiliency-period", "61m"), "to 1h"),
        (("--era", "2016", "--resiliency-period", "0s"), "not valid"),
        (("--era", "2016", "--resiliency-period", "long"), "not a duration"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_resiliency_period_that_is_not_to_be_had_names_its_option(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(("--dir", "data", *options))
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("ferry coordinator run: --resiliency-period: ")
    assert words in told


def test_the_address_that_clients_take_from_the_environment_is_no_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FERRY_COORDINATOR", "127.0.0.1:7000")
    monkeypatch.setenv("FERRY_COORDINATOR_ERA", "2012")
    settings = load_settings(("--dir", "data"))
    assert (settings.listen, settings.era) == ("127.0.0.1:0", Era.WS2012)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--cluster", "a b"), ("--profile", "slow"), ("--era", "2003"), ("--listen", "7000"), ("--broker", "x")],
)
def test_a_bad_value_names_its_option(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(("--dir", "data", option, value))
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"ferry coordinator run: {option}: ")


def test_networks_are_named_several_times() -> None:
    settings = load_settings(
        ("--dir", "d", "--network", "name=a,role=csv,metric=7", "--network", "name=b,role=client")
    )
    assert settings.network == (Network("a", NetworkRole.CSV, 7), Network("b", NetworkRole.CLIENT))


@pytest.mark.parametrize(
    ("networks", "words"),
    [
        (("name=a,role=lan",), "role 'lan' is not one of client, cluster"),
        (("name=a,role=csv", "name=a,role=csv"), "(network names)"),
        (("name=a,role=csv,subnet=10.0.0.0/8", "name=b,role=csv,subnet=10.1.0.0/16"), "(subnets)"),
    ],
)
def test_unsound_networks_are_refused(
    networks: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option for network in networks for option in ("--network", network)]
    with pytest.raises(SystemExit) as ended:
        load_settings(("--dir", "data", *options))
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
