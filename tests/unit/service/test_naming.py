"""Names that the server gives."""

from datetime import datetime, timedelta, timezone
from itertools import islice

from session_service.sessions.naming import suggestions


def test_a_name_is_the_utc_time() -> None:
    here = timezone(timedelta(hours=2))
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, here)
    assert list(islice(suggestions(moment), 3)) == [
        "session-20260102T010405.678901Z",
        "session-20260102T010405.678901Z-2",
        "session-20260102T010405.678901Z-3",
    ]
