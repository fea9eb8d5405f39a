"""The peers move real memory, all of it, and leave nothing behind."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic, sleep

import pytest

from ferry_cli.bench.catalogue import PEERS
from ferry_cli.bench.contents import Contents, memory_contents
from ferry_cli.bench.link import link_goodput_bytes_per_s, shaped_link
from ferry_cli.bench.peers import Peer, PeerUnavailable
from ferry_cli.bench.qemu import QEMU, QemuPeer

MEMORY_BYTES = 128 * 2**20
LINK_BYTES_PER_S = 125_000_000
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()


@pytest.fixture(scope="module")
def contents() -> Iterator[Contents]:
    with memory_contents("random", MEMORY_BYTES) as made:
        yield made


@pytest.fixture(params=PEERS)
async def peer(request: pytest.FixtureRequest, contents: Contents) -> AsyncIterator[Peer]:
    name: str = request.param
    if name.startswith("qemu") and shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (apt-get install qemu-system-x86)")
    chosen = PEERS[name]()
    await chosen.prepare(contents.path, contents.memory_bytes)
    yield chosen
    await chosen.close()


@pytest.fixture
async def link() -> AsyncIterator[tuple[str, ...]]:
    """The words that start a command behind a link of 1 Gbit/s."""
    async with AsyncExitStack() as stack:
        try:
            behind = await stack.enter_async_context(shaped_link(LINK_BYTES_PER_S))
        except PeerUnavailable as unavailable:
            pytest.skip(unavailable.refusal.message)
        yield behind


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def children_of_this_process() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def wait_for_children(count: int) -> None:
    give_up_at_s = monotonic() + 10
    while len(children_of_this_process()) < count:
        assert monotonic() < give_up_at_s, f"never had {count} children"
        sleep(0.005)


async def test_a_run_moves_all_memory_and_leaves_no_process(peer: Peer, contents: Contents) -> None:
    before, children_before = digest(contents.path), children_of_this_process()
    run = await peer.run_once()
    assert run.throughput_bytes_per_s == pytest.approx(MEMORY_BYTES / run.total_s)
    assert run.total_s > MEMORY_BYTES / 100e9, "faster than memory itself"
    assert children_of_this_process() == children_before
    assert digest(contents.path) == before
    assert str(MEMORY_BYTES) in peer.command


async def test_target_memory_lies_on_huge_pages(peer: Peer) -> None:
    if "[never]" in HUGE_PAGES:
        pytest.skip("this machine gives no huge pages")
    assert (await peer.run_once()).target_huge_bytes >= MEMORY_BYTES * 0.9


async def test_a_cancelled_run_leaves_no_process(peer: Peer) -> None:
    children_before = children_of_this_process()
    run = asyncio.create_task(peer.run_once())
    await asyncio.to_thread(wait_for_children, len(children_before) + 2)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert children_of_this_process() == children_before


@pytest.mark.parametrize("name", ["qemu", "grpc", "socket", "socket-2"])
async def test_behind_a_link_a_run_takes_what_its_goodput_says(
    name: str, contents: Contents, link: tuple[str, ...]
) -> None:
    if name.startswith("qemu") and shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not installed (apt-get install qemu-system-x86)")
    peer = PEERS[name]()
    await peer.prepare(contents.path, contents.memory_bytes, link)
    expected_s = MEMORY_BYTES / link_goodput_bytes_per_s(LINK_BYTES_PER_S)
    assert (await peer.run_once()).total_s == pytest.approx(expected_s, rel=0.03)


@pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
@pytest.mark.parametrize("channels", [0, 2, 4])
async def test_qemus_target_holds_the_contents(channels: int, contents: Contents, tmp_path: Path) -> None:
    """Above 1 MiB, where the machine puts its ROMs over the memory."""
    peer = QemuPeer(channels=channels)
    await peer.prepare(contents.path, contents.memory_bytes)
    async with asyncio.timeout(30), peer._pair() as (source, target):
        await source.execute("migrate", {"uri": await peer._listen(target)})
        await asyncio.gather(source.migration_end(), target.migration_end())
        saved = tmp_path / "memory"
        part = {"val": 2**20, "size": MEMORY_BYTES - 2**20, "filename": str(saved)}
        await target.execute("pmemsave", part)
    assert saved.read_bytes() == contents.path.read_bytes()[2**20 :]
