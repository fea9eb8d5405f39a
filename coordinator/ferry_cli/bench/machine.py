"""Where a bench ran: what of the machine decides about speed. No names and no addresses."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ferry_cli.bench.qemu import QEMU

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_FREE_PAGE_REPORTING = Path("/sys/module/page_reporting")
_QEMU_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class Machine:
    """``huge_pages``: whom the kernel gives transparent ones. ``qemu``: its version, None without one.

    ``reports_free_pages``: it is a virtual machine that hands free memory back to its hypervisor.
    """

    cpu: str
    cores: int
    memory_bytes: int
    kernel: str
    huge_pages: str
    reports_free_pages: bool
    python: str
    grpc: str
    qemu: str | None


def machine() -> Machine:
    """This machine, and what of it this process may use."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=platform.release(),
        huge_pages=_chosen(_HUGE_PAGES.read_text()) if _HUGE_PAGES.exists() else "never",
        reports_free_pages=_FREE_PAGE_REPORTING.exists(),
        python=platform.python_version(),
        grpc=version("grpcio"),
        qemu=_qemu_version(),
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _chosen(setting: str) -> str:
    """``always [madvise] never`` -> ``madvise``."""
    return setting.partition("[")[2].partition("]")[0]


def _qemu_version() -> str | None:
    """``QEMU emulator version 7.2.22 (Debian ...)`` -> ``7.2.22``."""
    if shutil.which(QEMU) is None:
        return None
    try:
        said = subprocess.run(
            (QEMU, "--version"), capture_output=True, text=True, check=True, timeout=_QEMU_S_MAX
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.partition(" version ")[2].split()[0] if " version " in said else None
