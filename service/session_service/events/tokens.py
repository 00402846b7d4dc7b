"""Resume tokens: places in logs, signed, and opaque to callers.

byte     version, 1
byte     number of places, today 1
16 bits  a place's source       } big-endian, once for each place
64 bits  system identifier      }
32 bits  timeline               }
64 bits  transaction id         }
64 bits  event number           }
128 bits BLAKE2b of all that, keyed by the log's secret
"""

import hmac
from hashlib import blake2b
from struct import Struct

from session_service.sessions.errors import InvalidResumeToken
from session_service.sessions.events import LogIdentity, Place, Position

_VERSION = 1
_SOURCE = 0
_TOKEN = Struct(">BBHQIQQ")
_SIGNATURE = 16


class Tokens:
    """Makes and reads the tokens of one log."""

    def __init__(self, identity: LogIdentity) -> None:
        self._identity = identity

    def token(self, position: Position) -> bytes:
        """The token of a place in this log."""
        of = self._identity
        body = _TOKEN.pack(_VERSION, 1, _SOURCE, of.system_identifier, of.timeline, *position)
        return body + self._sign(body)

    def place(self, token: bytes) -> Place:
        """The place that a token is of. Raises: InvalidResumeToken."""
        body, signature = token[: _TOKEN.size], token[_TOKEN.size :]
        if len(token) != _TOKEN.size + _SIGNATURE or not hmac.compare_digest(signature, self._sign(body)):
            raise InvalidResumeToken(
                f"resume_token: was not made by this service, got {len(token)} bytes", {"field": "resume_token"}
            )
        _, _, _, system_identifier, timeline, xid, seq = _TOKEN.unpack(body)
        return Place(system_identifier, timeline, Position(xid, seq))

    def _sign(self, body: bytes) -> bytes:
        return blake2b(body, digest_size=_SIGNATURE, key=self._identity.secret).digest()


def resolve(place: Place, identity: LogIdentity) -> Position | None:
    """Where to go on in this log.

    None: the place is of another cluster's log. A place of an earlier timeline is good up to where the following ones
    began: beyond it, the same transaction ids may have been used again, for other events.

    Raises:
        LookupError: the place is of a later timeline than this connection knows.
    """
    if place.system_identifier != identity.system_identifier:
        return None
    if place.timeline > identity.timeline:
        raise LookupError("the log is read on an earlier timeline than the token's")
    return min([place.position, *(start for timeline, start in identity.starts if timeline > place.timeline)])
