"""``ferry cluster show|set``: the cluster at a glance, and what an admin chooses for all of it."""

from typing import Annotated

import typer

from ferry.v1 import admin_pb2
from ferry_cli import admin, tables, views
from ferry_cli.options import CoordinatorOption, DirectoryOption, OutputOption, span
from ferry_cli.output import Output, print_document, print_pairs
from ferry_types.errors import FerryError, malformed
from ferry_types.limits import QUARANTINE_THRESHOLD_MAX


def show_cluster(
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the cluster: its level and timing, how many nodes and VMs are in each state, and its policy.

    PowerShell: Get-Cluster.
    """
    query = admin_pb2.ClusterQuery()
    cluster = admin.ask(coordinator, directory, lambda stub: stub.ShowCluster(query, timeout=admin.LOOK_S))
    if output is Output.JSON:
        print_document(views.cluster_view(cluster))
    else:
        print_pairs(tables.cluster_pairs(cluster))


def set_cluster(
    enforced_anti_affinity: Annotated[
        bool | None,
        typer.Option(
            "--enforced-anti-affinity/--no-enforced-anti-affinity",
            help="Whether a VM stays off rather than share a host with one of its anti-affinity classes.",
        ),
    ] = None,
    quarantine_threshold: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=QUARANTINE_THRESHOLD_MAX,
            help="Losses of a node within the period that put it into quarantine (era 2016); 0: never.",
        ),
    ] = None,
    quarantine_period: Annotated[
        str | None, typer.Option(metavar="DURATION", help="For how long a loss counts.")
    ] = None,
    quarantine_duration: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long a node in quarantine gets no VM.")
    ] = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Choose for the whole cluster; what is not named stays.

    PowerShell: (Get-Cluster).ClusterEnforcedAntiAffinity, QuarantineThreshold, QuarantineDuration.
    """
    change = admin_pb2.PolicyChange(
        enforced_anti_affinity=enforced_anti_affinity,
        quarantine_threshold=quarantine_threshold,
        quarantine_period_s=_span(quarantine_period, "--quarantine-period"),
        quarantine_s=_span(quarantine_duration, "--quarantine-duration"),
    )
    if not change.ListFields():
        raise FerryError(malformed("nothing of the cluster is to be changed", "see ferry cluster set --help"))
    cluster = admin.ask(coordinator, directory, lambda stub: stub.SetCluster(change, timeout=admin.LOOK_S))
    if output is Output.JSON:
        print_document(views.cluster_view(cluster))
    else:
        print_pairs(tables.policy_pairs(cluster.policy))


def _span(text: str | None, option: str) -> float | None:
    return None if text is None else span(text, option)
