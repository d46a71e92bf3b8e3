"""A new generation of the key: what is stored stays readable at every moment, and only the key's wrapping changes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kit.blobs import EncryptedBlobs, FileKek, open_store
from kit.blobs.kek import UnknownKeyError, UnwrapError
from kit.blobs.local import LocalObjects
from kit.blobs.rotation import Rewrapping, needing, retire, rewrap, used
from kit.rpc.errors import Corrupt, NotFound, StateConflict

PROJECT = "projects/default"
LATER = datetime.now(UTC) + timedelta(hours=1)


class World:
    """A store in a folder, its key file, and processes that have them open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kek = FileKek.create(folder / "kek", home=folder / "home")
        self.blobs = self.opened(self.kek)

    def opened(self, kek: FileKek | None = None) -> EncryptedBlobs:
        return open_store(
            f"file://{self.folder}/blobs", kek or FileKek.load(self.folder / "kek", home=self.folder / "h")
        )

    def data(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (self.folder / "blobs").rglob("data/*/*")}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def put(blobs: EncryptedBlobs, content: bytes, project: str = PROJECT) -> str:
    async def once() -> AsyncIterator[bytes]:
        yield content

    return (await blobs.put(project, once())).digest


async def read(blobs: EncryptedBlobs, digest: str) -> bytes:
    return b"".join([piece async for piece in blobs.open(PROJECT, digest)])


async def rewrapped(blobs: EncryptedBlobs) -> Rewrapping:
    found = Rewrapping()
    async for each in rewrap(blobs):
        found = each
    return found


async def test_processes_that_are_open_go_on_through_a_rotation(world: World) -> None:
    other = world.opened()
    old = [await put(world.blobs, b"old %d" % number) for number in range(40)]
    first = world.kek.key_id
    before = world.data()
    second = world.kek.rotate()
    assert second != first and other.kek.key_id == second, "a process that was open takes the new key by itself"
    new = await put(other, b"new")
    assert await used(world.blobs) == {first: 40, second: 1}
    assert [await read(other, digest) for digest in old] == [b"old %d" % number for number in range(40)]
    found = await rewrapped(world.blobs)
    assert (found.rewrapped, found.current, found.damaged, found.foreign) == (40, 1, [], [])
    assert await used(other) == {second: 41}
    assert before.items() <= world.data().items(), "no data was touched"
    assert await read(world.opened(), new) == b"new"
    assert (await rewrapped(other)).rewrapped == 0


async def test_a_former_key_is_retired_only_when_nothing_needs_it(world: World) -> None:
    digest = await put(world.blobs, b"x")
    first = world.kek.key_id
    for key_id, kind in ((first, StateConflict), ("0" * 16, NotFound)):
        with pytest.raises(kind):
            await retire(world.blobs, world.kek, key_id, LATER)
    world.kek.rotate()
    with pytest.raises(StateConflict, match="is it the store of the suite"):
        await retire(world.blobs, world.kek, first, LATER)
    await put(world.blobs, b"y")
    with pytest.raises(StateConflict, match="1 blobs are wrapped"):
        await retire(world.blobs, world.kek, first, LATER)
    await rewrapped(world.blobs)
    with pytest.raises(StateConflict, match="on its way"):
        await retire(world.blobs, world.kek, first, datetime.now(UTC))
    await retire(world.blobs, world.kek, first, LATER)
    assert [each.key_id for each in world.kek.generations()] == [world.kek.key_id]
    assert await read(world.opened(), digest) == b"x"
    with pytest.raises(UnknownKeyError):
        world.kek.unwrap(first, b"\0" * 40)


async def test_an_envelope_whose_key_id_is_damaged_still_needs_its_key(world: World) -> None:
    digest = await put(world.blobs, b"x")
    [path] = (world.folder / "blobs" / PROJECT / "blobs").rglob("*/*")
    first = world.kek.key_id
    path.write_bytes(path.read_bytes().replace(first.encode(), b"0" * 16))
    assert await read(world.blobs, digest) == b"x"
    world.kek.rotate()
    assert await needing(world.blobs, {world.kek.key_id}) == 1
    await put(world.blobs, b"y")
    with pytest.raises(StateConflict, match="wrapped with"):
        await retire(world.blobs, world.kek, first, LATER)
    assert (await rewrapped(world.blobs)).rewrapped == 1
    await retire(world.blobs, world.kek, first, LATER)
    assert await read(world.blobs, digest) == b"x"


async def test_a_key_that_waits_opens_but_does_not_wrap(world: World) -> None:
    waiting = world.kek.prepare()
    assert world.kek.prepare() == waiting and world.kek.key_id != waiting
    assert await used(world.blobs) == {}
    await put(world.blobs, b"x")
    assert list(await used(world.blobs)) == [world.kek.key_id] != [waiting]
    assert world.kek.rotate() == waiting == world.kek.key_id
    assert [each.wraps for each in world.kek.generations()] == [False, True]


async def test_what_is_damaged_or_foreign_is_named_and_left(world: World) -> None:
    good, bad = [await put(world.blobs, content) for content in (b"good", b"bad")]
    stranger = open_store(f"file://{world.folder}/blobs", FileKek(b"s" * 32))
    foreign = await put(stranger, b"foreign")
    path = next(each for each in (world.folder / "blobs").rglob(bad.removeprefix("sha256:")))
    path.write_bytes(path.read_bytes().replace(b'"size":3', b'"size":4'))
    world.kek.rotate()
    found = await rewrapped(world.blobs)
    assert found.rewrapped == 1 and found.damaged == [f"{PROJECT}/{bad}"] and found.foreign == [f"{PROJECT}/{foreign}"]
    assert await read(world.blobs, good) == b"good" and await read(stranger, foreign) == b"foreign"
    with pytest.raises(Corrupt):
        await read(world.blobs, bad)


async def test_what_is_set_aside_is_wrapped_anew_too(world: World) -> None:
    digest = await put(world.blobs, b"x")
    await world.blobs.set_aside(PROJECT, digest, "a test says so")
    world.kek.rotate()
    assert (await rewrapped(world.blobs)).rewrapped == 1
    await world.blobs.delete(PROJECT, digest)
    left = [path for path in (world.folder / "blobs").rglob("*") if path.is_file()]
    assert left == [], "a deleted blob leaves no key, set aside or not"


async def test_what_is_deleted_meanwhile_stays_deleted(world: World) -> None:
    digests = [await put(world.blobs, b"%d" % number) for number in range(120)]
    world.kek.rotate()
    other = world.opened()

    async def delete() -> None:
        for digest in digests[::2]:
            await other.delete(PROJECT, digest)
            await asyncio.sleep(0)

    async def reads() -> None:
        for number in range(1, 120, 2):
            assert await read(other, digests[number]) == b"%d" % number

    await asyncio.gather(rewrapped(world.blobs), delete(), reads())
    for digest in digests[::2]:
        assert await world.blobs.stat(PROJECT, digest) is None
    assert list((await used(world.blobs)).values()) == [60]


DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from kit.blobs import EncryptedBlobs, FileKek
from kit.blobs.local import LocalObjects
from kit.blobs.rotation import rewrap

class Dying(LocalObjects):
    left = int(sys.argv[2])
    after = sys.argv[3] == "after"
    async def replace(self, *arguments):
        Dying.left -= 1
        if Dying.left == 0:
            if self.after:
                await super().replace(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().replace(*arguments)

async def main():
    folder = Path(sys.argv[1])
    async for _ in rewrap(EncryptedBlobs(Dying(folder / "blobs"), FileKek.load(folder / "kek", home=folder / "home"))):
        pass

asyncio.run(main())
"""


async def test_killed_at_any_envelope_it_goes_on(world: World) -> None:
    digests = [await put(world.blobs, b"%d" % number) for number in range(80)]
    world.kek.rotate()
    for nth, when in ((1, "before"), (1, "after"), (9, "before"), (5, "after")):
        run = [sys.executable, "-c", DYING, str(world.folder), str(nth), when]
        done = await asyncio.to_thread(
            subprocess.run, run, cwd=Path(__file__).parents[3], capture_output=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        for number, digest in enumerate(digests):
            assert await read(world.blobs, digest) == b"%d" % number
    before = dict(await used(world.blobs))
    assert before[world.kek.key_id] >= 6 and len(before) == 2
    assert (await rewrapped(world.blobs)).rewrapped == 80 - before[world.kek.key_id]
    assert dict(await used(world.blobs)) == {world.kek.key_id: 80}


def test_a_change_of_the_file_that_was_killed_leaves_the_former_one(world: World) -> None:
    first = world.kek.key_id
    (world.folder / "kek.new").write_text("half a li")
    assert FileKek.load(world.folder / "kek", home=world.folder / "home").key_id == first
    second = world.kek.rotate()
    assert not (world.folder / "kek.new").exists()
    assert (world.folder / "kek").stat().st_mode & 0o777 == 0o600
    assert [each.key_id for each in world.kek.generations()] == [first, second]


def test_two_who_rotate_at_once_both_do(world: World) -> None:
    others = [FileKek.load(world.folder / "kek", home=world.folder / "home") for _ in range(4)]
    made = {each.rotate() for each in others}
    assert len(made) == 4 and made < {each.key_id for each in world.kek.generations()}


def test_a_key_file_that_is_gone_or_no_more_readable_leaves_what_is_known(world: World) -> None:
    key_id, wrapped = world.kek.wrap(b"k" * 32)
    (world.folder / "kek").rename(world.folder / "away")
    assert world.kek.unwrap(key_id, wrapped) == b"k" * 32 and world.kek.key_id == key_id
    (world.folder / "kek").write_text("nonsense")
    (world.folder / "kek").chmod(0o600)
    assert world.kek.unwrap(key_id, wrapped) == b"k" * 32
    with pytest.raises(ValueError, match="holds no key"):
        FileKek.load(world.folder / "kek", home=world.folder / "home")
    with pytest.raises(UnwrapError):
        world.kek.unwrap(key_id, wrapped[:-1] + bytes([wrapped[-1] ^ 1]))


def test_no_key_shows_in_words(world: World) -> None:
    world.kek.rotate()
    keys = [line.split()[0] for line in (world.folder / "kek").read_text().splitlines()]
    shown = f"{world.kek!r} {vars(world.kek)!r} {world.kek.generations()!r}"
    assert len(keys) == 2 and not any(key in shown for key in keys)


async def test_an_object_is_replaced_only_while_it_is_what_was_seen(tmp_path: Path) -> None:
    objects = LocalObjects(tmp_path)
    assert not await objects.replace("a/b", b"", b"new")
    assert await objects.create("a/b", b"old")
    assert not await objects.replace("a/b", b"other", b"new") and await objects.read("a/b") == b"old"
    assert await objects.replace("a/b", b"old", b"new") and await objects.read("a/b") == b"new"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["b"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be at work on the files of another user")
async def test_what_root_replaces_stays_its_owners(world: World) -> None:
    await put(world.blobs, b"x")
    [envelope] = (world.folder / "blobs" / PROJECT / "blobs").rglob("*/*")
    for path in (envelope, world.folder / "kek"):
        os.chown(path, 1234, 1235)
    world.kek.rotate()
    assert (await rewrapped(world.blobs)).rewrapped == 1
    for path in (envelope, world.folder / "kek"):
        assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (1234, 1235, 0o600)
