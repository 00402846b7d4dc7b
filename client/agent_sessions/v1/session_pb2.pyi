import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoopState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOOP_STATE_UNSPECIFIED: _ClassVar[LoopState]
    LOOP_STATE_IDLE: _ClassVar[LoopState]
    LOOP_STATE_THINKING: _ClassVar[LoopState]
    LOOP_STATE_EXECUTING_TOOL: _ClassVar[LoopState]
    LOOP_STATE_WAITING_FOR_INPUT: _ClassVar[LoopState]
    LOOP_STATE_STOPPED: _ClassVar[LoopState]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]
    ROLE_TOOL: _ClassVar[Role]

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TYPE_UNSPECIFIED: _ClassVar[EventType]
    EVENT_TYPE_SAVED: _ClassVar[EventType]
    EVENT_TYPE_RESTORED: _ClassVar[EventType]
    EVENT_TYPE_DELETED: _ClassVar[EventType]
    EVENT_TYPE_UNDELETED: _ClassVar[EventType]
LOOP_STATE_UNSPECIFIED: LoopState
LOOP_STATE_IDLE: LoopState
LOOP_STATE_THINKING: LoopState
LOOP_STATE_EXECUTING_TOOL: LoopState
LOOP_STATE_WAITING_FOR_INPUT: LoopState
LOOP_STATE_STOPPED: LoopState
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
ROLE_TOOL: Role
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_SAVED: EventType
EVENT_TYPE_RESTORED: EventType
EVENT_TYPE_DELETED: EventType
EVENT_TYPE_UNDELETED: EventType

class AgentState(_message.Message):
    __slots__ = ("agent_id", "message_history", "loop_state", "created_at", "llm_provider", "auth_context", "values")
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Payload
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Payload, _Mapping]] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_HISTORY_FIELD_NUMBER: _ClassVar[int]
    LOOP_STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LLM_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    AUTH_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    message_history: _containers.RepeatedCompositeFieldContainer[Message]
    loop_state: LoopState
    created_at: _timestamp_pb2.Timestamp
    llm_provider: str
    auth_context: AuthContext
    values: _containers.MessageMap[str, Payload]
    def __init__(self, agent_id: _Optional[str] = ..., message_history: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., loop_state: _Optional[_Union[LoopState, str]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., llm_provider: _Optional[str] = ..., auth_context: _Optional[_Union[AuthContext, _Mapping]] = ..., values: _Optional[_Mapping[str, Payload]] = ...) -> None: ...

class StateDelta(_message.Message):
    __slots__ = ("base_revision", "base_etag", "truncate_to", "appended_messages", "set_values", "remove_values", "loop_state", "llm_provider", "auth_context")
    class SetValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Payload
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Payload, _Mapping]] = ...) -> None: ...
    BASE_REVISION_FIELD_NUMBER: _ClassVar[int]
    BASE_ETAG_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_TO_FIELD_NUMBER: _ClassVar[int]
    APPENDED_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SET_VALUES_FIELD_NUMBER: _ClassVar[int]
    REMOVE_VALUES_FIELD_NUMBER: _ClassVar[int]
    LOOP_STATE_FIELD_NUMBER: _ClassVar[int]
    LLM_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    AUTH_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    base_revision: int
    base_etag: str
    truncate_to: int
    appended_messages: _containers.RepeatedCompositeFieldContainer[Message]
    set_values: _containers.MessageMap[str, Payload]
    remove_values: _containers.RepeatedScalarFieldContainer[str]
    loop_state: LoopState
    llm_provider: str
    auth_context: AuthContext
    def __init__(self, base_revision: _Optional[int] = ..., base_etag: _Optional[str] = ..., truncate_to: _Optional[int] = ..., appended_messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., set_values: _Optional[_Mapping[str, Payload]] = ..., remove_values: _Optional[_Iterable[str]] = ..., loop_state: _Optional[_Union[LoopState, str]] = ..., llm_provider: _Optional[str] = ..., auth_context: _Optional[_Union[AuthContext, _Mapping]] = ...) -> None: ...

class AuthContext(_message.Message):
    __slots__ = ("type",)
    TYPE_FIELD_NUMBER: _ClassVar[int]
    type: str
    def __init__(self, type: _Optional[str] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("message_id", "role", "create_time", "text", "payload")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    role: Role
    create_time: _timestamp_pb2.Timestamp
    text: str
    payload: Payload
    def __init__(self, message_id: _Optional[str] = ..., role: _Optional[_Union[Role, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., text: _Optional[str] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("content_type", "data")
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    content_type: str
    data: bytes
    def __init__(self, content_type: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("agent_id", "session_name", "uid", "user_id", "head_revision", "message_count", "size_bytes", "labels", "create_time", "update_time", "last_restore_time", "delete_time")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    HEAD_REVISION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_RESTORE_TIME_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    session_name: str
    uid: str
    user_id: str
    head_revision: int
    message_count: int
    size_bytes: int
    labels: _containers.ScalarMap[str, str]
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    last_restore_time: _timestamp_pb2.Timestamp
    delete_time: _timestamp_pb2.Timestamp
    def __init__(self, agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., uid: _Optional[str] = ..., user_id: _Optional[str] = ..., head_revision: _Optional[int] = ..., message_count: _Optional[int] = ..., size_bytes: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_restore_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Revision(_message.Message):
    __slots__ = ("revision", "etag", "parent_revision", "checkpoint_id", "message_count", "size_bytes", "create_time", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    PARENT_REVISION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    revision: int
    etag: str
    parent_revision: int
    checkpoint_id: str
    message_count: int
    size_bytes: int
    create_time: _timestamp_pb2.Timestamp
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, revision: _Optional[int] = ..., etag: _Optional[str] = ..., parent_revision: _Optional[int] = ..., checkpoint_id: _Optional[str] = ..., message_count: _Optional[int] = ..., size_bytes: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SessionEvent(_message.Message):
    __slots__ = ("event_id", "type", "agent_id", "session_name", "revision", "create_time", "actor", "client_id", "request_id")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    type: EventType
    agent_id: str
    session_name: str
    revision: int
    create_time: _timestamp_pb2.Timestamp
    actor: str
    client_id: str
    request_id: str
    def __init__(self, event_id: _Optional[str] = ..., type: _Optional[_Union[EventType, str]] = ..., agent_id: _Optional[str] = ..., session_name: _Optional[str] = ..., revision: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., client_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...
