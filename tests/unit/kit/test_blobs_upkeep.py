"""What keeps a store in order: all blobs are found in one order, damage is found, and only the unreadable is swept."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kit.blobs import EncryptedBlobs, FileKek, open_store
from kit.blobs.upkeep import Pace, left_behind, places, spaces, verify
from kit.rpc.errors import Corrupt, NotFound

PROJECT = "projects/default"


@pytest.fixture
def blobs(tmp_path: Path) -> EncryptedBlobs:
    return open_store(f"file://{tmp_path}", FileKek(b"k" * 32))


async def put(blobs: EncryptedBlobs, content: bytes, space: str = PROJECT) -> str:
    async def once() -> AsyncIterator[bytes]:
        yield content

    return (await blobs.put(space, once())).digest


async def test_all_blobs_are_found_in_an_order_that_can_be_gone_on_with(blobs: EncryptedBlobs) -> None:
    where = [PROJECT, "projects/default-2", "projects/a", f"{PROJECT}/uploads/u", f"{PROJECT}/uploads/evaluation-1"]
    put_there = {(space, await put(blobs, b"%d" % number, space)) for space in where for number in range(12)}
    found = [place async for place in places(blobs.objects)]
    assert {(each.space, each.digest) for each in found} == put_there and len(found) == len(put_there)
    paths = [each.path for each in found]
    assert paths == sorted(paths) and not any(each.aside for each in found)
    for start in (0, 17, 59):
        rest = [place.path async for place in places(blobs.objects, after=paths[start])]
        assert rest == paths[start + 1 :]
    assert await spaces(blobs.objects) == sorted(where, key=lambda space: f"{space}/")


async def test_a_whole_blob_is_read_and_damage_set_aside(blobs: EncryptedBlobs, tmp_path: Path) -> None:
    digest = await put(blobs, content := os.urandom(2 << 20))
    [place] = [each async for each in places(blobs.objects)]
    assert await verify(blobs, place, Pace()) == len(content)
    [path] = (tmp_path / PROJECT / "data").rglob("*/*")
    stored = bytearray(path.read_bytes())
    stored[-1] ^= 1  # the end: a read of the beginning would not meet it
    path.write_bytes(stored)
    with pytest.raises(Corrupt):
        await verify(blobs, place, Pace())
    with pytest.raises(NotFound):
        await verify(blobs, place, Pace())
    [aside] = [each async for each in places(blobs.objects)]
    assert aside.aside and aside.digest == digest


async def test_the_pace_is_kept() -> None:
    pace, began = Pace(1_000_000), time.monotonic()
    await asyncio.gather(*(pace.spend(50_000) for _ in range(4)))
    assert time.monotonic() - began > 0.15


async def test_only_old_data_that_no_envelope_names_is_left_behind(blobs: EncryptedBlobs, tmp_path: Path) -> None:
    lost, kept, aside = [await put(blobs, content) for content in (b"lost", b"kept", b"aside")]
    await blobs.objects.remove(f"{PROJECT}/blobs/{lost[7:9]}/{lost[7:]}")  # as if its writer had died before
    await blobs.set_aside(PROJECT, aside, "a test says so")
    (tmp_path / PROJECT / "blobs" / "ab").mkdir(parents=True)
    draft = tmp_path / PROJECT / "blobs" / "ab" / "cd.writing"
    draft.write_bytes(b"half")
    now = datetime.now(UTC)
    assert await left_behind(blobs.objects, PROJECT, now) == []
    later = now + timedelta(days=3)
    found = await left_behind(blobs.objects, PROJECT, later)
    assert len(found) == 2 and {each.path.endswith(".writing") for each in found} == {True, False}
    for each in found:
        await blobs.objects.remove(each.path)
    assert len(list((tmp_path / PROJECT / "data").rglob("*/*"))) == 2
    assert await left_behind(blobs.objects, PROJECT, later) == []
    assert b"".join([piece async for piece in blobs.open(PROJECT, kept)]) == b"kept"


async def test_an_envelope_that_says_nothing_may_name_any_data(blobs: EncryptedBlobs, tmp_path: Path) -> None:
    digest = await put(blobs, b"x")
    [path] = (tmp_path / PROJECT / "blobs").rglob(digest[7:])
    path.write_bytes(b"garbage")
    assert await left_behind(blobs.objects, PROJECT, datetime.now(UTC) + timedelta(days=9)) == []


async def test_the_space_of_an_upload_is_cleared_and_no_project(blobs: EncryptedBlobs, tmp_path: Path) -> None:
    space = f"{PROJECT}/uploads/u"
    mine, _ = await put(blobs, b"x"), await put(blobs, b"x", space)
    with pytest.raises(ValueError, match="many owners"):
        await blobs.clear(PROJECT)
    await blobs.clear(space)
    await blobs.clear(space)
    assert not (tmp_path / space).exists() and await blobs.stat(PROJECT, mine) is not None
