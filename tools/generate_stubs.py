"""Generates the Python stubs of the wire contract beside its ``.proto`` files, or checks that they are.

Runs in the environment of ``tools/stubs-requirements.txt``; ``make stubs`` and ``make check`` see to that.
Messages get ``*_pb2.py`` and ``.pyi``; files with services also ``*_pb2_grpc.py`` and ``.pyi``, typed for
``grpc.aio`` only, because no process of ours speaks synchronous gRPC.
"""

import argparse
import difflib
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PROTO_ROOT = Path(__file__).resolve().parent.parent / "proto"
PACKAGE = Path("ferry/v1")
STUB_PATTERN = "*_pb2*.py*"
DIFF_LINES_SHOWN_MAX = 40


def main() -> int:
    """Writes the stubs, or with ``--check`` compares them; 0 if all is well, 1 if stubs are out of date."""
    parser = argparse.ArgumentParser(description="Generates the stubs of the wire contract.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stubs are out of date")
    parser.add_argument("--proto-root", type=Path, default=PROTO_ROOT, help="the folder that holds ferry/v1")
    arguments = parser.parse_args()
    proto_root: Path = arguments.proto_root.resolve()
    wanted = generate(proto_root)
    present = {path.name: path.read_text() for path in (proto_root / PACKAGE).glob(STUB_PATTERN)}
    if arguments.check:
        return report_differences(present, wanted)
    write_changes(proto_root / PACKAGE, present, wanted)
    return 0


def generate(proto_root: Path) -> Mapping[str, str]:
    """Returns the text of every stub by file name. Raises CalledProcessError when protoc refuses a file."""
    protos = sorted((proto_root / PACKAGE).glob("*.proto"))
    if not protos:
        sys.exit(f"no .proto files in {proto_root / PACKAGE}")
    with_services = [path for path in protos if re.search(r"^service\s", path.read_text(), re.MULTILINE)]
    with tempfile.TemporaryDirectory(prefix="ferry-stubs-") as out:
        run_protoc(proto_root, protos, f"--python_out={out}", f"--mypy_out=quiet:{out}")
        if with_services:
            grpc_outputs = (f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet,only_async:{out}")
            run_protoc(proto_root, with_services, *grpc_outputs)
        return {path.name: path.read_text() for path in (Path(out) / PACKAGE).glob(STUB_PATTERN)}


def run_protoc(proto_root: Path, protos: Sequence[Path], *outputs: str) -> None:
    """Runs this environment's protoc with its mypy plug-ins."""
    bin_dir = Path(sys.executable).parent
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{proto_root}",
            f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
            *outputs,
            *(path.relative_to(proto_root).as_posix() for path in protos),
        ],
        check=True,
    )


def write_changes(folder: Path, present: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Brings the folder's stubs up to date; leaves files alone that already are."""
    for name in present.keys() - wanted.keys():
        (folder / name).unlink()
        print(f"removed {name}")
    for name, text in sorted(wanted.items()):
        if present.get(name) != text:
            (folder / name).write_text(text)
            print(f"wrote {name}")


def report_differences(present: Mapping[str, str], wanted: Mapping[str, str]) -> int:
    """Prints how the stubs differ from what would be generated; 1 if they do, else 0."""
    stale = sorted(name for name in present.keys() | wanted.keys() if present.get(name) != wanted.get(name))
    for name in stale:
        diff = difflib.unified_diff(
            present.get(name, "").splitlines(),
            wanted.get(name, "").splitlines(),
            f"{name} (committed)",
            f"{name} (generated)",
            lineterm="",
        )
        print("\n".join(list(diff)[:DIFF_LINES_SHOWN_MAX]))
    if stale:
        print(f"Stubs are out of date: {', '.join(stale)}. Run `make stubs` and commit the result.")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
