"""The peers by the names that `--against` takes."""

from ferry_cli.bench.pair import PairPeer
from ferry_cli.bench.peers import Peer, PeerFactory
from ferry_cli.bench.qemu import QemuMultifdPeer, QemuPeer
from ferry_types.errors import FerryError, malformed

PEERS: dict[str, PeerFactory] = {
    "qemu": QemuPeer,
    "qemu-multifd": QemuMultifdPeer,
    "qemu-zstd": lambda: QemuMultifdPeer("qemu-zstd", "zstd"),
    "grpc": lambda: PairPeer("grpc", "ferry_cli.bench.grpc_peer"),
    "grpc-2": lambda: PairPeer("grpc-2", "ferry_cli.bench.grpc_peer", streams=2),
    "grpc-4": lambda: PairPeer("grpc-4", "ferry_cli.bench.grpc_peer", streams=4),
    "socket": lambda: PairPeer("socket", "ferry_cli.bench.socket_peer"),
    "socket-2": lambda: PairPeer("socket-2", "ferry_cli.bench.socket_peer", streams=2),
}


def choose_peers(names: str) -> list[Peer]:
    """Peers of a comma-separated list, in its order, none twice. Raises FerryError for an unknown name."""
    chosen = dict.fromkeys(name.strip() for name in names.split(",") if name.strip())
    unknown = [name for name in chosen if name not in PEERS]
    if unknown:
        raise FerryError(malformed(f"there is no peer {unknown[0]!r}", f"choose from {', '.join(PEERS)}"))
    return [PEERS[name]() for name in chosen]
