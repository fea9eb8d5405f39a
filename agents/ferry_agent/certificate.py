"""Bringing a death certificate to the coordinator (rule C1)."""

import asyncio
from typing import Final

import grpc.aio

from ferry.v1 import membership_pb2, membership_pb2_grpc
from ferry_wire.channels import open_channel

ATTEMPT_S_MAX: Final = 2.0
_PAUSE_S = 0.2


def deliver(
    coordinator: str, node: str, incarnation: str, cause: str, duration_s: float, *, ordered: bool
) -> bool:
    """Tell the coordinator, again and again for so long; False if it never took it. A repeat is harmless."""
    certificate = membership_pb2.DeathCertificate(
        node=node, incarnation=incarnation, cause=cause, ordered=ordered
    )
    return asyncio.run(_deliver(coordinator, certificate, duration_s))


async def _deliver(coordinator: str, certificate: membership_pb2.DeathCertificate, duration_s: float) -> bool:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + duration_s
    while True:
        async with open_channel(coordinator) as channel:
            stub = membership_pb2_grpc.MembershipStub(channel)
            try:
                await stub.CertifyDeath(certificate, timeout=ATTEMPT_S_MAX)
            except grpc.aio.AioRpcError:
                if loop.time() >= deadline_s:
                    return False
            else:
                return True
        await asyncio.sleep(_PAUSE_S)
