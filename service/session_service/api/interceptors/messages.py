"""Bytes to request messages and answers to bytes, inside the layers.

Stock grpc would answer an undecodable or too large message by itself, without
google.rpc.ErrorInfo, and before any layer sees the call.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from session_service.api.errors import UndecodableRequest
from session_service.api.interceptors.call import Call
from session_service.sessions.errors import MessageTooLarge


class MessageCodec:
    """Reads requests and writes answers of one method, and counts both."""

    def __init__(
        self,
        parse: Callable[[bytes], Any] | None,
        serialise: Callable[[Any], bytes] | None,
        max_request_bytes: int,
    ) -> None:
        self._parse = parse
        self._serialise = serialise
        self._max_request_bytes = max_request_bytes

    def decode(self, call: Call, data: bytes) -> Any:
        """Return the message in these bytes. Raises MessageTooLarge and UndecodableRequest."""
        call.messages_received += 1
        call.request_bytes += len(data)
        if len(data) > self._max_request_bytes:
            raise _too_large(len(data), self._max_request_bytes)
        try:
            message = self._parse(data) if self._parse else data
        except (DecodeError, UnicodeDecodeError):
            raise UndecodableRequest(
                f"the request's {len(data)} bytes are not the message that {call.method} takes"
            ) from None
        call.names(message)
        return message

    def encode(self, call: Call, message: Any) -> bytes:
        """Return an answer's bytes; bytes are an answer in wire form already."""
        data: bytes = self._serialise(message) if self._serialise and not isinstance(message, bytes) else message
        call.messages_sent += 1
        call.response_bytes += len(data)
        return data


def _too_large(actual: int, limit: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"the request has {actual} bytes; at most {limit} are allowed",
        {"limit": str(limit), "actual": str(actual)},
    )
