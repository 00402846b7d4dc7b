"""Which revision a request means."""

from agent_sessions.v1 import session_service_pb2 as messages


def set_target(
    request: messages.RestoreSessionRequest | messages.GetRevisionRequest | messages.DownloadSessionRequest,
    revision: int | None,
    checkpoint_id: str,
) -> None:
    """Ask for a revision by its number or by the caller's own id; for the newest by neither."""
    if revision is not None and checkpoint_id:
        raise ValueError("revision and checkpoint_id exclude each other")
    if revision is not None:
        request.revision = revision
    elif checkpoint_id:
        request.checkpoint_id = checkpoint_id


def same_in_pieces(
    request: messages.RestoreSessionRequest | messages.GetRevisionRequest,
) -> messages.DownloadSessionRequest:
    """Return the request for the same state in pieces, recorded or not as by that one."""
    download = messages.DownloadSessionRequest(
        agent_id=request.agent_id, session_name=request.session_name, message_limit=request.message_limit
    )
    if isinstance(request, messages.RestoreSessionRequest):
        download.request_id, download.client_id = request.request_id, request.client_id
    else:
        download.read_only = True
    set_target(download, request.revision or None, request.checkpoint_id)
    return download
