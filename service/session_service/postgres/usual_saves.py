"""Plans the usual save: a delta that only appends messages to the remembered head.

Nearly every save is one. So it goes from the request to its row with few steps, by what is remembered: nothing is
read for it, and the save function has nothing to judge. That function carries the plan out only if the head is
still the remembered one.
"""

from session_service.postgres import saving
from session_service.postgres.heads import Head
from session_service.postgres.operations import SaveOperation
from session_service.postgres.saving import Planned, Prepared
from session_service.sessions import digests, fragments
from session_service.sessions.model import Delta
from session_service.sessions.transcript import SEGMENT_BYTES, SEGMENT_MESSAGES


def plan(prepared: Prepared, head: Head | None) -> Planned | None:
    """What to write so that the save follows `head`. None: it is another kind of save."""
    save = prepared.save
    delta = save.content
    if not isinstance(delta, Delta) or head is None or head.base is None:
        return None
    base, tail = head.base, head.tail
    if (
        delta.base_revision != head.revision
        or delta.base_etag not in ("", base.etag)
        or delta.truncate_to is not None
        or not delta.appended
        or delta.set_values
        or delta.remove_values
        or save.expected_revision not in (None, head.revision)
        or save.checkpoint_id
        or save.self_contained
        or save.server_named
        or tail.message_count != tail.transcript_length
        or not head.rules_out(prepared.request_id)
    ):
        return None
    payload = fragments.join(delta.appended)
    if len(payload) > SEGMENT_BYTES or len(delta.appended) > SEGMENT_MESSAGES:
        return None
    first, added = base.message_count, len(delta.appended)
    count, size = first + added, base.message_bytes + len(payload)
    digest = digests.running(save.tenant.digest_secret, delta.appended, base.digest)[-1]
    packed = saving.pack_state(prepared, head, base.parts)
    last = saving.segment_row(first, added, size, payload, digest)
    row = saving.save_row(prepared, head, base.transcript_id, count, count, size, digest, packed, last)
    operation = SaveOperation(prepared.lock_keys, row, None, len(packed.state) + len(last.payload))
    return Planned(operation, base.parts, packed, saving.recent_with(prepared, head), "append", added)
