"""Checksums of rows."""

import pytest
from session_service.postgres import checksums

ROWS = [
    (0, 1, 1048, 1048, 1, b"d" * 16, b"\x00\xff" * 200),
    (1, 20, 10**12, 2**31 - 1, 0, b"", b""),
    (2**40, 0, 0, 0, 7, b"digest", b"payload"),
]


@pytest.mark.parametrize(("row", "checksum"), [*zip(ROWS, [-1071319552, -2052683137, -2003450148], strict=True)])
def test_a_checksum_never_changes(row: tuple[int, int, int, int, int, bytes, bytes], checksum: int) -> None:
    """What is stored was made with it."""
    assert checksums.of_segment(*row) == checksum


def test_many_have_the_checksums_of_each() -> None:
    assert checksums.of_segments(*zip(*ROWS, strict=True)) == [checksums.of_segment(*row) for row in ROWS]
