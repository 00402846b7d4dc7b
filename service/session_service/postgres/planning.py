"""Plans saves: from a request and the head it follows to one operation.

A plan may read, but it writes nothing. It is carried out only if the head is
still the one that it was made for.
"""

from session_service.postgres import heads, saving, states
from session_service.postgres.heads import Base, Head, StateParts
from session_service.postgres.saving import Planned, Prepared
from session_service.postgres.states import Fetch
from session_service.postgres.transcripts import Transcripts, owner_of
from session_service.sessions import fragments, transcript
from session_service.sessions.errors import InvalidField, StateTooLarge
from session_service.sessions.model import MAX_VALUES, Content, Delta, Target
from session_service.sessions.transcript import Placed, Run

MESSAGES_FIELD = 2
"""AgentState's message_history."""

WRITTEN_OUT_BYTES = 64 << 20
"""The largest state that is read and written anew for a delta: bounds memory, and the length of the transaction."""


async def plan(prepared: Prepared, head: Head | None, fetch: Fetch) -> Planned:
    """What to write so that the save follows `head` (None: there is no session).

    Raises:
        InvalidField: truncate_to is more than the base has.
        CorruptData: a delta's base is damaged.
    """
    content = prepared.save.content
    if isinstance(content, Content):
        return await _snapshot(prepared, head, content, fetch)
    if content.base_revision == 0:
        if content.truncate_to:
            raise InvalidField("delta.truncate_to", "at most 0, the messages of the empty state", content.truncate_to)
        if content.base_etag:
            return saving.base_missing(prepared, head)
        everything = Content(content.appended, content.set_values, content.small, b"")
        return await _snapshot(prepared, head, everything, fetch)
    base = await _base(prepared, head, content, fetch)
    if head is None or base is None or content.base_etag not in ("", base.etag):
        return saving.base_missing(prepared, head)
    return await _delta(prepared, head, base, content, fetch)


async def _snapshot(prepared: Prepared, head: Head | None, content: Content, fetch: Fetch) -> Planned:
    save = prepared.save
    run = prepared.run or Run.whole(prepared.secret, content.messages)
    if head is None or save.self_contained:
        placed = transcript.whole(run)
    else:
        placed = await _transcripts(prepared, fetch).place(run, head.tail)
    inline, shared, rows = saving.sort_values(prepared.secret, content.values)
    parts = StateParts(content.kept, inline, shared)
    return saving.put_together(prepared, head, placed, run, parts, rows)


async def _delta(prepared: Prepared, head: Head, base: Base, delta: Delta, fetch: Fetch) -> Planned:
    count = base.message_count if delta.truncate_to is None else delta.truncate_to
    if count > base.message_count:
        raise InvalidField("delta.truncate_to", f"at most {base.message_count}, the messages of the base", count)
    if prepared.save.self_contained:
        if base.message_bytes > WRITTEN_OUT_BYTES:
            raise _too_large_to_heal(prepared, base)
        return await _written_out(prepared, head, base, delta, count, fetch)
    run, placed = await _placed(prepared, head, base, delta, count, fetch)
    if placed is None:
        return await _written_out(prepared, head, base, delta, count, fetch)
    if not delta.set_values and not delta.remove_values:
        return saving.put_together(prepared, head, placed, run, base.parts, ())
    inline, shared, rows = saving.sort_values(prepared.secret, delta.set_values)
    gone = {*delta.remove_values, *delta.set_values}
    parts = StateParts(
        base.parts.kept,
        {name: value for name, value in base.parts.inline.items() if name not in gone} | inline,
        {name: value for name, value in base.parts.shared.items() if name not in gone} | shared,
    )
    _check_values(len(parts.inline) + len(parts.shared))
    return saving.put_together(prepared, head, placed, run, parts, rows)


async def _placed(
    prepared: Prepared, head: Head, base: Base, delta: Delta, count: int, fetch: Fetch
) -> tuple[Run, Placed | None]:
    """Where a delta's messages go; None: they must be written out whole."""
    secret, tail = prepared.secret, head.tail
    if count == base.message_count:
        run = Run.after(secret, count, base.digest, base.message_bytes, delta.appended)
        if base.revision == head.revision:
            if tail.message_count == tail.transcript_length:
                return run, transcript.append(tail, run)
            if not delta.appended:
                return run, transcript.prefix(tail)
    transcripts = _transcripts(prepared, fetch)
    chain = await transcripts.chain(base.transcript_id, base.message_count)
    if count < base.message_count:
        digest, size = await transcripts.at(chain, count)
        run = Run.after(secret, count, digest, size, delta.appended)
    link = owner_of(chain, count)
    if link is None:
        return run, transcript.whole(run) if count == 0 else None
    if not delta.appended and link.transcript_id == tail.transcript_id:
        return run, transcript.prefix(tail)
    # One more ancestor harms a large state less than writing it anew would.
    is_too_deep = transcript.too_deep(link.owner) and base.message_bytes <= WRITTEN_OUT_BYTES
    return run, None if is_too_deep else transcript.branch(link.owner, count, run)


async def _written_out(prepared: Prepared, head: Head, base: Base, delta: Delta, count: int, fetch: Fetch) -> Planned:
    """Reads the base whole and stores the result as if it had come as a snapshot that shares nothing."""
    found = await states.read(fetch, prepared.key, Target(revision=base.revision), 0)
    messages: list[bytes] = []
    values: dict[str, bytes] = {}
    for number, field in fragments.fields(found.state or b""):
        if number == MESSAGES_FIELD:
            messages += fragments.split(field)
        elif number == heads.VALUES_FIELD:
            values[fragments.value_name(field)] = field
    gone = {*delta.remove_values}
    values = {name: value for name, value in values.items() if name not in gone} | dict(delta.set_values)
    _check_values(len(values))
    run = Run.whole(prepared.secret, [*messages[:count], *delta.appended])
    inline, shared, rows = saving.sort_values(prepared.secret, values)
    parts = StateParts(base.parts.kept, inline, shared)
    return saving.put_together(prepared, head, transcript.whole(run), run, parts, rows)


def _too_large_to_heal(prepared: Prepared, base: Base) -> StateTooLarge:
    return StateTooLarge(
        f"{prepared.key} revision {base.revision} has {base.message_bytes} bytes of messages; a self-contained delta "
        f"writes at most {WRITTEN_OUT_BYTES} anew: upload the state with self_contained",
        {"limit": str(WRITTEN_OUT_BYTES), "actual": str(base.message_bytes)},
    )


def _check_values(count: int) -> None:
    if count > MAX_VALUES:
        raise InvalidField("delta.set_values", f"at most {MAX_VALUES} values in a state", count)


async def _base(prepared: Prepared, head: Head | None, delta: Delta, fetch: Fetch) -> Base | None:
    if head is None:
        return None
    if delta.base_revision == head.revision and head.base is not None:
        return head.base
    # The name may be another session's by now than the one the head was read for; the session_id tells.
    return await heads.read_base(fetch, prepared.key, head, delta.base_revision)


def _transcripts(prepared: Prepared, fetch: Fetch) -> Transcripts:
    return Transcripts(fetch, prepared.bucket, prepared.save.tenant.tenant_id, prepared.secret)
