"""Payloads packed and unpacked."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_service.codec import compression
from session_service.codec.compression import RAW, THRESHOLD, ZSTD, Damaged, pack, unpack, unpack_all


@given(st.binary(max_size=5000))
def test_unpack_gives_back_what_pack_took(raw: bytes) -> None:
    assert unpack(*pack(raw)) == raw


def test_small_and_incompressible_payloads_stay_as_they_are() -> None:
    assert pack(b"a" * (THRESHOLD - 1)).codec == RAW
    assert pack(random.Random(1).randbytes(5000)).codec == RAW  # noqa: S311  no secret


def test_large_text_is_compressed() -> None:
    packed = pack(b"all work and no play " * 500)
    assert packed.codec == ZSTD
    assert len(packed.payload) < 200


def test_damage_is_told() -> None:
    codec, size, payload = pack(b"all work and no play " * 500)
    for broken in (payload[:-1], b"\x00" + payload[1:], b""):
        with pytest.raises(Damaged):
            unpack(codec, size, broken)
    with pytest.raises(Damaged):
        unpack(9, size, payload)
    with pytest.raises(Damaged):
        unpack(RAW, size + 1, b"x" * size)


def test_memory_is_bounded_by_the_size_that_was_stored() -> None:
    bomb = pack(b"\x00" * 10_000_000)
    with pytest.raises(Damaged):
        unpack(bomb.codec, 1000, bomb.payload)
    assert compression.unpack(*bomb) == b"\x00" * 10_000_000


@given(st.lists(st.sampled_from((b"", b"short", b"all work and no play " * 100, b"1" * 2000)), max_size=20))
def test_many_are_unpacked_as_each_is(raws: list[bytes]) -> None:
    raws *= compression.MANY  # so that there are enough of them
    assert [bytes(raw) for raw in unpack_all(*_columns(map(pack, raws)))] == raws


@pytest.mark.parametrize("count", [1, 3 * compression.MANY])
def test_damage_of_one_of_many_is_told(count: int) -> None:
    codec, size, payload = pack(b"all work and no play " * 500)
    for broken in (
        (codec, size, payload[:-1]),
        (codec, size, b"\x00" + payload[1:]),
        (codec, size, b""),
        (codec, size - 1, payload),
        (codec, size + 1, payload),
        (9, size, payload),
        (RAW, size, payload),
    ):
        packed = [(codec, size, payload)] * count
        packed[count // 2] = broken
        with pytest.raises(Damaged):
            unpack_all(*_columns(packed))


def _columns(packed: Iterable[tuple[int, int, bytes]]) -> tuple[list[int], list[int], list[bytes]]:
    rows = list(packed)
    return [codec for codec, _, _ in rows], [size for _, size, _ in rows], [payload for _, _, payload in rows]
