"""What a guest's processor holds outside memory: the device state of a migration."""

import functools
import struct
import zlib
from dataclasses import astuple, dataclass, fields

import xxhash

from ferry_agent.guest.mixing import mix
from ferry_types.errors import FerryError, failed
from ferry_types.limits import PAGE_SIZE
from ferry_types.workloads import WorkloadSpec

MAGIC = int.from_bytes(b"FerryVM1", "little")
VERSION = 1


@dataclass(frozen=True, slots=True)
class Registers:
    """All fields are unsigned 64-bit. The guest keeps a copy in its header page and compares the two.

    ``name_hash``, ``spec_digest``, ``n_pages`` say whose registers they are; ``boot_epoch`` is the ownership
    epoch of the boot; ``seed`` follows from both. ``step`` counts steps since the boot, ``faults`` what the
    guest found wrong, ``ledger_sum`` is the sum of its ledger modulo 2**64.
    """

    magic: int
    version: int
    name_hash: int
    spec_digest: int
    n_pages: int
    boot_epoch: int
    seed: int
    step: int
    faults: int
    ledger_sum: int

    @classmethod
    def at_boot(cls, name: str, memory_bytes: int, spec: WorkloadSpec, boot_epoch: int) -> "Registers":
        """Registers of a VM that has not made a step."""
        name_hash = xxhash.xxh3_64_intdigest(name.encode())
        return cls(
            magic=MAGIC,
            version=VERSION,
            name_hash=name_hash,
            spec_digest=_digest(spec),
            n_pages=memory_bytes // PAGE_SIZE,
            boot_epoch=boot_epoch,
            seed=mix(name_hash ^ mix(boot_epoch)),
            step=0,
            faults=0,
            ledger_sum=0,
        )

    def words(self) -> list[int]:
        """The fields in their order, as the header page holds them."""
        return [
            self.magic,
            self.version,
            self.name_hash,
            self.spec_digest,
            self.n_pages,
            self.boot_epoch,
            self.seed,
            self.step,
            self.faults,
            self.ledger_sum,
        ]

    def advanced(self, step: int, faults: int, ledger_sum: int) -> "Registers":
        """The same VM after a step."""
        return Registers(
            self.magic,
            self.version,
            self.name_hash,
            self.spec_digest,
            self.n_pages,
            self.boot_epoch,
            self.seed,
            step,
            faults,
            ledger_sum,
        )

    def save(self) -> bytes:
        """As device state: the fields, little-endian, and their CRC-32."""
        body = _BODY.pack(*self.words())
        return body + _CHECK.pack(zlib.crc32(body))

    @classmethod
    def load(cls, state: bytes, name: str, memory_bytes: int, spec: WorkloadSpec) -> "Registers":
        """Device state that was saved of this very VM. Raises FerryError if it is anything else."""
        problem = "it has the wrong length"
        if len(state) == DEVICE_STATE_BYTES:
            body, (check,) = state[: _BODY.size], _CHECK.unpack(state[_BODY.size :])
            loaded = cls(*_BODY.unpack(body))
            expected = cls.at_boot(name, memory_bytes, spec, loaded.boot_epoch)
            wrong = [
                field
                for field in ("magic", "version", "name_hash", "spec_digest", "n_pages", "seed")
                if getattr(loaded, field) != getattr(expected, field)
            ]
            if check != zlib.crc32(body):
                problem = "its checksum is wrong"
            elif wrong:
                problem = f"{', '.join(wrong)} are not those of this VM"
            else:
                return loaded
        raise FerryError(failed(f"the device state of {name} cannot be used: {problem}", "move the VM again"))


@functools.lru_cache(maxsize=64)
def _digest(spec: WorkloadSpec) -> int:
    """Kept, because an arriving guest's registers are checked inside its black-out."""
    return xxhash.xxh3_64_intdigest(repr(astuple(spec)).encode())


_BODY = struct.Struct(f"<{len(fields(Registers))}Q")
_CHECK = struct.Struct("<I")
DEVICE_STATE_BYTES = _BODY.size + _CHECK.size
