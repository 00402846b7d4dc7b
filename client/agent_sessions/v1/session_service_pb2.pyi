import datetime

from agent_sessions.v1 import session_pb2 as _session_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RevisionView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVISION_VIEW_UNSPECIFIED: _ClassVar[RevisionView]
    REVISION_VIEW_BASIC: _ClassVar[RevisionView]
    REVISION_VIEW_FULL: _ClassVar[RevisionView]
REVISION_VIEW_UNSPECIFIED: RevisionView
REVISION_VIEW_BASIC: RevisionView
REVISION_VIEW_FULL: RevisionView

class SaveSessionRequest(_message.Message):
    __slots__ = ("agent_id", "session_name", "snapshot", "delta", "expected_revision", "request_id", "client_id", "user_id", "labels", "checkpoint_id", "metadata", "self_contained")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SELF_CONTAINED_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    snapshot: _session_pb2.AgentState
    delta: _session_pb2.StateDelta
    expected_revision: int
    request_id: str
    client_id: str
    user_id: str
    labels: Labels
    checkpoint_id: str
    metadata: _containers.ScalarMap[str, str]
    self_contained: bool
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., snapshot: _Optional[_Union[_session_pb2.AgentState, _Mapping]] = ..., delta: _Optional[_Union[_session_pb2.StateDelta, _Mapping]] = ..., expected_revision: _Optional[int] = ..., request_id: _Optional[str] = ..., client_id: _Optional[str] = ..., user_id: _Optional[str] = ..., labels: _Optional[_Union[Labels, _Mapping]] = ..., checkpoint_id: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., self_contained: bool = ...) -> None: ...

class Labels(_message.Message):
    __slots__ = ("entries",)
    class EntriesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.ScalarMap[str, str]
    def __init__(self, entries: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SaveSessionResponse(_message.Message):
    __slots__ = ("session", "revision", "replayed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    revision: _session_pb2.Revision
    replayed: bool
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., revision: _Optional[_Union[_session_pb2.Revision, _Mapping]] = ..., replayed: bool = ...) -> None: ...

class SaveSessionsRequest(_message.Message):
    __slots__ = ("saves",)
    SAVES_FIELD_NUMBER: _ClassVar[int]
    saves: _containers.RepeatedCompositeFieldContainer[FramedSave]
    def __init__(self, saves: _Optional[_Iterable[_Union[FramedSave, _Mapping]]] = ...) -> None: ...

class FramedSave(_message.Message):
    __slots__ = ("request", "timeout")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    request: SaveSessionRequest
    timeout: _duration_pb2.Duration
    def __init__(self, request: _Optional[_Union[SaveSessionRequest, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SaveSessionsResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SaveResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SaveResult, _Mapping]]] = ...) -> None: ...

class SaveResult(_message.Message):
    __slots__ = ("request_id", "response", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    response: SaveSessionResponse
    error: SaveError
    def __init__(self, request_id: _Optional[str] = ..., response: _Optional[_Union[SaveSessionResponse, _Mapping]] = ..., error: _Optional[_Union[SaveError, _Mapping]] = ...) -> None: ...

class SaveError(_message.Message):
    __slots__ = ("code", "reason", "message", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UploadSessionRequest(_message.Message):
    __slots__ = ("header", "batch")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    header: SaveSessionRequest
    batch: StateBatch
    def __init__(self, header: _Optional[_Union[SaveSessionRequest, _Mapping]] = ..., batch: _Optional[_Union[StateBatch, _Mapping]] = ...) -> None: ...

class UploadSessionResponse(_message.Message):
    __slots__ = ("session", "revision", "replayed")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    revision: _session_pb2.Revision
    replayed: bool
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., revision: _Optional[_Union[_session_pb2.Revision, _Mapping]] = ..., replayed: bool = ...) -> None: ...

class StateBatch(_message.Message):
    __slots__ = ("message_history", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _session_pb2.Payload
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_session_pb2.Payload, _Mapping]] = ...) -> None: ...
    MESSAGE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    message_history: _containers.RepeatedCompositeFieldContainer[_session_pb2.Message]
    values: _containers.MessageMap[str, _session_pb2.Payload]
    def __init__(self, message_history: _Optional[_Iterable[_Union[_session_pb2.Message, _Mapping]]] = ..., values: _Optional[_Mapping[str, _session_pb2.Payload]] = ...) -> None: ...

class RestoreSessionRequest(_message.Message):
    __slots__ = ("agent_id", "session_name", "revision", "checkpoint_id", "message_limit", "request_id", "client_id")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    revision: int
    checkpoint_id: str
    message_limit: int
    request_id: str
    client_id: str
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., revision: _Optional[int] = ..., checkpoint_id: _Optional[str] = ..., message_limit: _Optional[int] = ..., request_id: _Optional[str] = ..., client_id: _Optional[str] = ...) -> None: ...

class RestoreSessionResponse(_message.Message):
    __slots__ = ("session", "revision", "state")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    revision: _session_pb2.Revision
    state: _session_pb2.AgentState
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., revision: _Optional[_Union[_session_pb2.Revision, _Mapping]] = ..., state: _Optional[_Union[_session_pb2.AgentState, _Mapping]] = ...) -> None: ...

class DownloadSessionRequest(_message.Message):
    __slots__ = ("agent_id", "session_name", "revision", "checkpoint_id", "message_limit", "request_id", "client_id", "read_only")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    revision: int
    checkpoint_id: str
    message_limit: int
    request_id: str
    client_id: str
    read_only: bool
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., revision: _Optional[int] = ..., checkpoint_id: _Optional[str] = ..., message_limit: _Optional[int] = ..., request_id: _Optional[str] = ..., client_id: _Optional[str] = ..., read_only: bool = ...) -> None: ...

class DownloadSessionResponse(_message.Message):
    __slots__ = ("header", "batch")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    header: DownloadHeader
    batch: StateBatch
    def __init__(self, header: _Optional[_Union[DownloadHeader, _Mapping]] = ..., batch: _Optional[_Union[StateBatch, _Mapping]] = ...) -> None: ...

class DownloadHeader(_message.Message):
    __slots__ = ("session", "revision", "state")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    revision: _session_pb2.Revision
    state: _session_pb2.AgentState
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., revision: _Optional[_Union[_session_pb2.Revision, _Mapping]] = ..., state: _Optional[_Union[_session_pb2.AgentState, _Mapping]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("agent_id", "session_name")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ...) -> None: ...

class GetRevisionRequest(_message.Message):
    __slots__ = ("agent_id", "session_name", "revision", "checkpoint_id", "view", "message_limit")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    revision: int
    checkpoint_id: str
    view: RevisionView
    message_limit: int
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., revision: _Optional[int] = ..., checkpoint_id: _Optional[str] = ..., view: _Optional[_Union[RevisionView, str]] = ..., message_limit: _Optional[int] = ...) -> None: ...

class GetRevisionResponse(_message.Message):
    __slots__ = ("session", "revision", "state")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    revision: _session_pb2.Revision
    state: _session_pb2.AgentState
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., revision: _Optional[_Union[_session_pb2.Revision, _Mapping]] = ..., state: _Optional[_Union[_session_pb2.AgentState, _Mapping]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("agent_id", "page_size", "page_token", "order_by", "user_id", "labels", "name_prefix", "show_deleted")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    NAME_PREFIX_FIELD_NUMBER: _ClassVar[int]
    SHOW_DELETED_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    page_size: int
    page_token: str
    order_by: str
    user_id: str
    labels: _containers.ScalarMap[str, str]
    name_prefix: str
    show_deleted: bool
    def __init__(self, agent_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., order_by: _Optional[str] = ..., user_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., name_prefix: _Optional[str] = ..., show_deleted: bool = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[_session_pb2.Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[_session_pb2.Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListRevisionsRequest(_message.Message):
    __slots__ = ("agent_id", "session_name", "page_size", "page_token", "order_by", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    page_size: int
    page_token: str
    order_by: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., order_by: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListRevisionsResponse(_message.Message):
    __slots__ = ("revisions", "next_page_token")
    REVISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    revisions: _containers.RepeatedCompositeFieldContainer[_session_pb2.Revision]
    next_page_token: str
    def __init__(self, revisions: _Optional[_Iterable[_Union[_session_pb2.Revision, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("agent_id", "session_name", "purge", "expected_revision", "request_id", "client_id")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    PURGE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    purge: bool
    expected_revision: int
    request_id: str
    client_id: str
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., purge: bool = ..., expected_revision: _Optional[int] = ..., request_id: _Optional[str] = ..., client_id: _Optional[str] = ...) -> None: ...

class DeleteSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ...) -> None: ...

class UndeleteSessionRequest(_message.Message):
    __slots__ = ("agent_id", "session_name", "expected_revision", "request_id", "client_id")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    expected_revision: int
    request_id: str
    client_id: str
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., expected_revision: _Optional[int] = ..., request_id: _Optional[str] = ..., client_id: _Optional[str] = ...) -> None: ...

class UndeleteSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ...) -> None: ...

class WatchSessionsRequest(_message.Message):
    __slots__ = ("agent_id", "session_name", "types", "resume_token")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    types: _containers.RepeatedScalarFieldContainer[_session_pb2.EventType]
    resume_token: bytes
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., types: _Optional[_Iterable[_Union[_session_pb2.EventType, str]]] = ..., resume_token: _Optional[bytes] = ...) -> None: ...

class WatchSessionsResponse(_message.Message):
    __slots__ = ("created", "event", "bookmark", "resume_token")
    class Created(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Bookmark(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    CREATED_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    created: WatchSessionsResponse.Created
    event: _session_pb2.SessionEvent
    bookmark: WatchSessionsResponse.Bookmark
    resume_token: bytes
    def __init__(self, created: _Optional[_Union[WatchSessionsResponse.Created, _Mapping]] = ..., event: _Optional[_Union[_session_pb2.SessionEvent, _Mapping]] = ..., bookmark: _Optional[_Union[WatchSessionsResponse.Bookmark, _Mapping]] = ..., resume_token: _Optional[bytes] = ...) -> None: ...
