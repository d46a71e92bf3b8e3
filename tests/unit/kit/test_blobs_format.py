"""The stored form of a blob under any damage: what is read is what was put, or the read says that it is damaged."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.blobs import EncryptedBlobs, FileKek, open_store
from kit.rpc.errors import Corrupt, NotFound, StateConflict

PROJECT = "projects/default"
FRAME = (1 << 20) + 16
CONTENT = bytes(range(256)) * 4096 * 2 + b"the end"  # two frames and a short one
SMALL = b"a row"
MEMORY = Path("/dev/shm")  # where there is one: each example syncs a dozen times
KEK = FileKek(b"k" * 32)


def opened(folder: Path) -> EncryptedBlobs:
    return open_store(f"file://{folder}", KEK)


async def put(blobs: EncryptedBlobs, content: bytes) -> str:
    async def once() -> AsyncIterator[bytes]:
        yield content

    return (await blobs.put(PROJECT, once())).digest


async def outcome(content: bytes, damage: Callable[[bytes], bytes], of: str) -> tuple[bytes | None, bool]:
    """What a read gives after damage to the `data` or the envelope (`blobs`), and whether the blob is there still."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        blobs = opened(folder)
        digest = await put(blobs, content)
        path = next(each for each in (folder / PROJECT / of).rglob("*") if each.is_file())
        before = path.read_bytes()
        path.write_bytes(damage(before))
        try:
            found = b"".join([piece async for piece in blobs.open(PROJECT, digest)])
        except (Corrupt, StateConflict) as fault:
            assert "row" not in fault.message
            found = None
        try:
            there = await blobs.stat(PROJECT, digest) is not None
        except (Corrupt, NotFound, StateConflict):
            there = True
        if found is None and not there:  # what was set aside can be put again
            assert await put(blobs, content) == digest
            assert b"".join([piece async for piece in blobs.open(PROJECT, digest)]) == content
        return found, there


def run(content: bytes, damage: Callable[[bytes], bytes], of: str) -> tuple[bytes | None, bool]:
    return asyncio.run(outcome(content, damage, of))


def flipped(data: bytes, place: int, bit: int) -> bytes:
    place %= len(data)
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


#: Everywhere, and the borders of frames, tags and the end most of all.
PLACES = st.one_of(
    st.integers(0, 2 * FRAME + 22),
    st.sampled_from([0, FRAME - 17, FRAME - 16, FRAME - 1, FRAME, 2 * FRAME - 16, 2 * FRAME - 1, 2 * FRAME]),
    st.integers(2 * FRAME, 2 * FRAME + 22),
)


@settings(max_examples=25, deadline=None)
@given(PLACES, st.integers(0, 7))
def test_any_flipped_bit_of_the_data_is_found(place: int, bit: int) -> None:
    assert run(CONTENT, lambda data: flipped(data, place, bit), "data") == (None, False)


@settings(max_examples=20, deadline=None)
@given(PLACES)
def test_data_that_is_cut_anywhere_is_found(length: int) -> None:
    assert run(CONTENT, lambda data: data[:length], "data") == (None, False)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(3)).filter(lambda order: list(order) != [0, 1, 2]))
def test_frames_in_another_order_are_found(order: list[int]) -> None:
    def moved(data: bytes) -> bytes:
        frames = [data[start : start + FRAME] for start in range(0, len(data), FRAME)]
        return b"".join(frames[each] for each in order)

    assert run(CONTENT, moved, "data") == (None, False)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=5).filter(lambda order: order[:3] != [0, 1, 2]))
def test_frames_that_are_left_out_or_repeated_are_found(order: list[int]) -> None:
    def chosen(data: bytes) -> bytes:
        frames = [data[start : start + FRAME] for start in range(0, len(data), FRAME)]
        return b"".join(frames[each] for each in order)

    assert run(CONTENT, chosen, "data") == (None, False)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 600), st.integers(0, 7))
def test_a_flipped_bit_of_the_envelope_gives_the_bytes_or_is_found(place: int, bit: int) -> None:
    found, there = run(SMALL, lambda data: flipped(data, place, bit), "blobs")
    assert found == SMALL or (found is None and not there)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400))
def test_an_envelope_that_is_cut_is_found(length: int) -> None:
    found, there = run(SMALL, lambda data: data[: length % len(data)], "blobs")
    assert (found, there) == (None, False)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_as_an_envelope_are_found(content: bytes) -> None:
    assert run(SMALL, lambda _: content, "blobs") == (None, False)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4))
def test_a_stated_size_that_is_another_is_found(size: int, extra: int) -> None:
    def resized(data: bytes) -> bytes:
        stated = size if size != len(SMALL) else size + 1
        return data.replace(b'"size":%d' % len(SMALL), b'"size":%d' % stated)

    assert run(SMALL, resized, "blobs") == (None, False)
