"""Errors <-> gRPC status, in one place.

A handler raises FerryError; the interceptor of ``ferry_wire.servers`` ends the call with the status code of
the refusal and packs the refusal itself into the status's details (``google.rpc.Status``). ``refusal_of``
unpacks it at the other end, and words what gRPC itself reports. What a handler raises beside FerryError is a
defect: it is logged with its traceback, and the caller learns no more than that.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, NoReturn, TypeVar, cast

import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from ferry.v1 import common_pb2
from ferry_types.errors import ErrorCode, FerryError, Refusal, failed, malformed
from ferry_wire.conversion import from_proto

TEXT_BYTES_MAX: Final = 1024
"""Each text of a refusal is cut to so much on the wire, because metadata must stay below 16 KiB."""

_DETAILS_KEY: Final = "grpc-status-details-bin"
"""Where gRPC carries google.rpc.Status."""

STATUS_CODES: Final[Mapping[ErrorCode, grpc.StatusCode]] = {
    ErrorCode.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorCode.REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.UNREACHABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.FAILED: grpc.StatusCode.INTERNAL,
}

_ERROR_CODES: Final[Mapping[grpc.StatusCode, ErrorCode]] = {
    **{status: code for code, status in STATUS_CODES.items()},
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.UNREACHABLE,
}

SAME_VERSION: Final = "check that the address is right and that both run the same version"
"""What to do about an answer that makes no sense."""

_HINTS: Final[Mapping[grpc.StatusCode, str]] = {
    grpc.StatusCode.UNAVAILABLE: "check that the process runs and that the address is right",
    grpc.StatusCode.DEADLINE_EXCEEDED: "check that the process is neither stopped nor overloaded",
    grpc.StatusCode.UNIMPLEMENTED: SAME_VERSION,
    grpc.StatusCode.RESOURCE_EXHAUSTED: "try again when it has less to do",
}

_log = logging.getLogger(__name__)

Handler = Callable[[Any, Any], Any]

M = TypeVar("M", bound=Message)


async def abort_with(context: "grpc.aio.ServicerContext[Any, Any]", refusal: Refusal) -> NoReturn:
    """End a call with a refusal: raises what gRPC ends calls with, which must not be caught."""
    await context.abort_with_status(rpc_status.to_status(_status(refusal)))


def refusal_of(error: grpc.aio.AioRpcError, address: str = "") -> Refusal:
    """What went wrong with a call: the server's own refusal, or a description of what gRPC reports.

    ``address`` is where the call went, for the message. No answer, or none in time: code ``unreachable``.
    """
    packed = _packed_refusal(error)
    if packed is not None:
        return packed
    where = address or "the other end"
    details = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            what = f"{where} cannot be reached: {details}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            what = f"{where} did not answer in time"
        case _:
            what = f"{where} did not do what was asked: {details}"
    code = _ERROR_CODES.get(error.code(), ErrorCode.FAILED)
    return Refusal(code, what, _HINTS.get(error.code(), ""))


async def answered(call: Awaitable[M | None], address: str) -> M:
    """The answer of a unary call. Raises FerryError: the refusal, or that there is none to be understood."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        raise FerryError(refusal_of(error, address)) from error
    if answer is None:  # what gRPC makes of bytes that it cannot decode
        raise FerryError(failed(f"{address} gave an answer that is no such message", SAME_VERSION))
    return answer


def _status(refusal: Refusal) -> status_pb2.Status:
    message, hint, rule = (_cut(text) for text in (refusal.message, refusal.hint, refusal.rule))
    detail = any_pb2.Any()
    detail.Pack(common_pb2.Refusal(code=refusal.code, rule=rule, message=message, hint=hint))
    return status_pb2.Status(code=STATUS_CODES[refusal.code].value[0], message=message, details=[detail])


def _cut(text: str) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= TEXT_BYTES_MAX:
        return encoded.decode()
    return encoded[: TEXT_BYTES_MAX - 3].decode(errors="ignore") + "..."


def _packed_refusal(error: grpc.aio.AioRpcError) -> Refusal | None:
    """The refusal in the details of a status; None if there is none that this version can read."""
    for key, value in error.trailing_metadata() or ():
        if key != _DETAILS_KEY:
            continue
        message = common_pb2.Refusal()
        try:
            details = status_pb2.Status.FromString(cast("bytes", value)).details
            if details and details[0].Unpack(message):
                return from_proto(message, Refusal)
        except (FerryError, ValueError):
            return None
    return None


# --- server side --------------------------------------------------------------------------------


class RefusalInterceptor(grpc.aio.ServerInterceptor):
    """Ends calls whose handlers raise; ``deadline_s`` bounds unary calls, by ``/package.Service/Name``.

    Handlers are coroutine functions or async generator functions.
    """

    def __init__(self, deadline_s: Callable[[str], float]) -> None:
        self._deadline_s = deadline_s

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Wrap the handler of one call."""
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None  # gRPC says UNIMPLEMENTED
        serializers = (_refusing_decoder(handler.request_deserializer, method), handler.response_serializer)
        if handler.unary_unary is not None:
            answer = _bounded(handler.unary_unary, method, self._deadline_s(method))
            return grpc.unary_unary_rpc_method_handler(_guarded(answer, method), *serializers)
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(_guarded(handler.stream_unary, method), *serializers)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(_guarded(handler.unary_stream, method), *serializers)
        return grpc.stream_stream_rpc_method_handler(_guarded(handler.stream_stream, method), *serializers)


def _refusing_decoder(decode: Callable[[bytes], Any] | None, method: str) -> Callable[[bytes], Any] | None:
    """A decoder whose failure is the caller's, and said so."""
    if decode is None:
        return None

    def decode_or_refuse(wire: bytes) -> Any:
        try:
            return decode(wire)
        except DecodeError:
            what = f"a message of {len(wire)} bytes is none that {method} takes"
            raise FerryError(malformed(what, "check that both run the same version")) from None

    return decode_or_refuse


def _bounded(handler: Handler, method: str, deadline_s: float) -> Handler:
    async def answer(request: Any, context: Any) -> Any:
        bound = asyncio.timeout(deadline_s)
        try:
            async with bound:
                return await handler(request, context)
        except TimeoutError:
            if not bound.expired():
                raise
            what = f"{method} did not finish within {deadline_s:g} s"
            raise FerryError(failed(what, "look whether it was done after all, then ask again")) from None

    return answer


def _guarded(handler: Handler, method: str) -> Handler:
    """The handler, a coroutine function or an async generator function, with its errors made statuses."""
    if inspect.isasyncgenfunction(handler):

        async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                async with aclosing(handler(request, context)) as responses:
                    async for response in responses:
                        yield response
            except Exception as error:  # noqa: BLE001 - nothing a handler raises leaves unworded
                await _end(context, error, method)

        return stream

    async def answer(request: Any, context: Any) -> Any:
        try:
            return await handler(request, context)
        except Exception as error:  # noqa: BLE001 - nothing a handler raises leaves unworded
            await _end(context, error, method)

    return answer


async def _end(context: Any, error: Exception, method: str) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error  # the handler has ended the call itself
    if isinstance(error, FerryError):
        await abort_with(context, error.refusal)
    _log.error("%s failed unexpectedly", method, exc_info=error)
    await abort_with(
        context,
        failed(
            f"{method} failed unexpectedly ({type(error).__name__})",
            "the log of the process that answered has the details",
        ),
    )
