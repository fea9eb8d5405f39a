"""The named tests of ``ferry cluster validate``, and how they are run: facts in, findings out.

The names are those of ``Test-Cluster``, where it has such a test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ferry_cli.validation import cluster, inventory, network, storage, system
from ferry_cli.validation.facts import Facts
from ferry_cli.validation.verdicts import Category, Finding, Verdict


@dataclass(frozen=True, slots=True)
class NamedTest:
    """A test by its name."""

    category: Category
    name: str
    judge: Callable[[Facts], Verdict]


TESTS: Final = (
    NamedTest(Category.INVENTORY, "List hosts and processors", inventory.hosts_and_processors),
    NamedTest(Category.INVENTORY, "List software versions", inventory.software_versions),
    NamedTest(Category.INVENTORY, "List memory information", inventory.memory),
    NamedTest(Category.INVENTORY, "List virtual machines", inventory.virtual_machines),
    NamedTest(Category.NETWORK, "Validate that processes answer", network.processes_answer),
    NamedTest(Category.NETWORK, "Validate IP configuration", network.ip_configuration),
    NamedTest(Category.NETWORK, "Validate network communication", network.communication),
    NamedTest(Category.NETWORK, "Validate network latency", network.latency),
    NamedTest(Category.NETWORK, "Validate coordinator communication", network.coordinator_communication),
    NamedTest(Category.NETWORK, "Validate witness communication", network.witness_communication),
    NamedTest(Category.NETWORK, "Validate echo ports", network.echo_ports),
    NamedTest(Category.STORAGE, "Validate data directories", storage.data_directories),
    NamedTest(Category.STORAGE, "Validate write latency", storage.write_latency),
    NamedTest(Category.SYSTEM, "Validate clocks", system.clocks),
    NamedTest(Category.SYSTEM, "Validate processor vendors", system.processor_vendors),
    NamedTest(Category.SYSTEM, "Validate processor generations", system.processor_generations),
    NamedTest(Category.SYSTEM, "Validate Active Directory configuration", system.domains),
    NamedTest(Category.SYSTEM, "Validate virtual switches", system.virtual_switches),
    NamedTest(Category.SYSTEM, "Validate functional levels", system.functional_levels),
    NamedTest(Category.CLUSTER, "Validate nodes", cluster.nodes_up),
    NamedTest(Category.CLUSTER, "Validate quorum configuration", cluster.quorum),
    NamedTest(Category.CLUSTER, "Validate capacity to lose a node", cluster.capacity_to_lose_a_node),
    NamedTest(Category.CLUSTER, "Validate event log", cluster.event_log),
)


def run_tests(facts: Facts) -> tuple[Finding, ...]:
    """What each test finds, in the order of ``TESTS``."""
    findings = []
    for test in TESTS:
        verdict = test.judge(facts)
        findings.append(Finding(test.category, test.name, verdict.outcome, verdict.found, verdict.advice))
    return tuple(findings)
