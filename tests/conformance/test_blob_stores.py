"""What every blob store promises, run over each of them."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore, ObjectStore, S3Store

from kit.blobs import Blob, BlobStore, FileKek, open_store
from kit.blobs.rotation import rewrap, used
from kit.rpc.errors import Corrupt, Invalid, NotFound, StateConflict, Unavailable
from sluice.errors import v1 as errors
from tests.seaweed import seaweed

PROJECT = "projects/default"
MIB = 1 << 20
SIZES = [0, 1, 1000, MIB - 1, MIB, MIB + 1, 3 * MIB, 9 * MIB + 17]


class Bucket:
    """A store under test and, beside it, its raw objects, to damage them."""

    def __init__(self, url: str, raw: ObjectStore, kek: FileKek, options: dict[str, str]) -> None:
        self.url = url
        self.raw = raw
        self.options = options
        self.store = open_store(url, kek, options)

    def paths(self, under: str) -> list[str]:
        return sorted(entry["path"] for entry in obstore.list(self.raw, prefix=f"{PROJECT}/{under}").collect())

    def replace(self, path: str, content: bytes) -> None:
        obstore.put(self.raw, path, content)

    def read(self, path: str) -> bytes:
        return bytes(obstore.get(self.raw, path).bytes())


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server.options


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.prove)])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    kek = FileKek.create(tmp_path / "keys" / "kek", home=tmp_path / "home")
    if request.param == "s3":
        options = request.getfixturevalue("s3")
        url = f"s3://blobs/{tmp_path.name}-{os.urandom(4).hex()}"
        return Bucket(url, S3Store.from_url(url, config=options, client_options={"allow_http": True}), kek, options)
    folder = tmp_path / "home" / "blobs"
    folder.mkdir(parents=True)
    return Bucket(folder.as_uri(), LocalStore(folder), kek, {})


@pytest.fixture
def store(bucket: Bucket) -> BlobStore:
    return bucket.store


async def pieces(content: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def read(store: BlobStore, digest: str, start: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in store.open(PROJECT, digest, start, length)])


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_put_comes_back(store: BlobStore, size: int) -> None:
    content = os.urandom(size)
    blob = await store.put(PROJECT, pieces(content))
    assert blob == Blob(sha256(content), size) == await store.stat(PROJECT, blob.digest)
    assert await read(store, blob.digest) == content


async def test_a_file_is_put_as_its_bytes_are(store: BlobStore, tmp_path: Path) -> None:
    content = os.urandom(2 * MIB + 5)
    (tmp_path / "f").write_bytes(content)
    assert await store.put(PROJECT, tmp_path / "f") == await store.put(PROJECT, pieces(content))


async def test_any_range_can_be_read(store: BlobStore) -> None:
    content = os.urandom(6 * MIB + 100)
    blob = await store.put(PROJECT, pieces(content))
    for start in (0, 1, MIB - 1, MIB, 5 * MIB + 3, 6 * MIB + 99, 6 * MIB + 100, 7 * MIB):
        for length in (None, 0, 1, MIB, 2 * MIB + 1):
            expected = content[start:] if length is None else content[start : start + length]
            assert await read(store, blob.digest, start, length) == expected
    for start, length in ((-1, None), (0, -1)):
        with pytest.raises(Invalid):
            await read(store, blob.digest, start, length)


async def test_putting_again_is_putting_once(bucket: Bucket) -> None:
    content = os.urandom(MIB)
    blobs = await asyncio.gather(*(bucket.store.put(PROJECT, pieces(content)) for _ in range(5)))
    assert len(set(blobs)) == 1
    assert len(bucket.paths("data")) == len(bucket.paths("blobs")) == 1
    assert await read(bucket.store, blobs[0].digest) == content


async def test_a_wrong_digest_keeps_nothing(bucket: Bucket) -> None:
    content = os.urandom(5 * MIB)
    with pytest.raises(Invalid) as refused:
        await bucket.store.put(PROJECT, pieces(content), digest=sha256(b"other"))
    assert refused.value.reason == errors.ERROR_REASON_CHECKSUM_MISMATCH
    assert bucket.paths("") == []
    await bucket.store.put(PROJECT, pieces(content), digest=sha256(content))


async def test_a_source_that_fails_keeps_nothing(bucket: Bucket) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield os.urandom(9 * MIB)
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await bucket.store.put(PROJECT, failing())
    assert bucket.paths("") == []


async def test_a_cancelled_put_keeps_nothing(bucket: Bucket) -> None:
    stuck = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield os.urandom(9 * MIB)
        stuck.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(bucket.store.put(PROJECT, endless()))
    await stuck.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert bucket.paths("") == []


async def test_projects_do_not_see_each_other(store: BlobStore) -> None:
    blob = await store.put(PROJECT, pieces(b"mine"))
    assert await store.stat("projects/other", blob.digest) is None
    with pytest.raises(NotFound):
        _ = [piece async for piece in store.open("projects/other", blob.digest)]
    await store.delete("projects/other", blob.digest)
    assert await read(store, blob.digest) == b"mine"


async def test_delete_removes_all(bucket: Bucket) -> None:
    blob = await bucket.store.put(PROJECT, pieces(b"secret"))
    await bucket.store.delete(PROJECT, blob.digest)
    await bucket.store.delete(PROJECT, blob.digest)
    assert await bucket.store.stat(PROJECT, blob.digest) is None
    assert bucket.paths("") == []


@pytest.mark.parametrize("project", ["default", "projects/", "projects/../x", "projects/a/b", ""])
async def test_a_wrong_project_is_refused(store: BlobStore, project: str) -> None:
    with pytest.raises(Invalid):
        await store.put(project, pieces(b"x"))
    with pytest.raises(Invalid):
        await store.stat(project, sha256(b"x"))


@pytest.mark.parametrize("digest", ["", "abc", "sha256:../../x", "sha256:" + "A" * 64])
async def test_a_wrong_digest_name_is_refused(store: BlobStore, digest: str) -> None:
    with pytest.raises(Invalid):
        await store.stat(PROJECT, digest)


async def test_nothing_is_stored_in_the_clear(bucket: Bucket) -> None:
    content = b"the patient's name " * 100_000
    await bucket.store.put(PROJECT, pieces(content))
    assert all(b"patient" not in bucket.read(path) for path in bucket.paths(""))


STORED = MIB + 16
DAMAGES = {
    "a flipped bit": lambda data: data[:5] + bytes([data[5] ^ 1]) + data[6:],
    "a flipped bit at the end": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "two frames swapped": lambda data: data[STORED : 2 * STORED] + data[:STORED] + data[2 * STORED :],
    "the last frame cut off": lambda data: data[: 2 * STORED],
    "the last byte cut off": lambda data: data[:-1],
    "the first frame cut off": lambda data: data[STORED:],
    "a frame twice": lambda data: data[:STORED] + data,
    "all cut off": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found_and_set_aside(bucket: Bucket, damage: str) -> None:
    content = os.urandom(2 * MIB + 500)
    blob = await bucket.store.put(PROJECT, pieces(content))
    [path] = bucket.paths("data")
    bucket.replace(path, DAMAGES[damage](bucket.read(path)))
    with pytest.raises(Corrupt) as corrupt:
        await read(bucket.store, blob.digest)
    assert corrupt.value.reason == errors.ERROR_REASON_CORRUPT_BLOB
    assert await bucket.store.stat(PROJECT, blob.digest) is None
    assert len(bucket.paths("quarantine")) == 1
    assert await bucket.store.put(PROJECT, pieces(content)) == blob
    assert await read(bucket.store, blob.digest) == content


@pytest.mark.parametrize("damage", ["size", "swapped", "garbage", "empty"])
async def test_a_changed_envelope_is_found(bucket: Bucket, damage: str) -> None:
    one = await bucket.store.put(PROJECT, pieces(b"one"))
    [path] = bucket.paths("blobs")
    mine = bucket.read(path)
    await bucket.store.put(PROJECT, pieces(b"two"))
    [other] = set(bucket.paths("blobs")) - {path}
    bucket.replace(
        path,
        {
            "size": mine.replace(b'"size":3', b'"size":2'),
            "swapped": bucket.read(other),
            "garbage": b"\xff{",
            "empty": b"",
        }[damage],
    )
    with pytest.raises(Corrupt):
        await bucket.store.stat(PROJECT, one.digest)
    assert await bucket.store.put(PROJECT, pieces(b"one")) == one
    assert await read(bucket.store, one.digest) == b"one"


async def test_putting_over_lost_data_heals(bucket: Bucket) -> None:
    blob = await bucket.store.put(PROJECT, pieces(b"precious"))
    obstore.delete(bucket.raw, bucket.paths("data"))
    assert await bucket.store.put(PROJECT, pieces(b"precious")) == blob
    assert await read(bucket.store, blob.digest) == b"precious"


@pytest.mark.prove
async def test_an_endpoint_of_the_environment_may_be_plain_http(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name.upper(), value)
    store = open_store("s3://blobs/plain", FileKek.create(tmp_path / "kek", home=tmp_path / "home"))
    blob = await store.put(PROJECT, pieces(b"x"))
    assert await read(store, blob.digest) == b"x"


async def test_another_key_is_named_and_harms_nothing(bucket: Bucket, tmp_path: Path) -> None:
    blob = await bucket.store.put(PROJECT, pieces(b"x"))
    stranger = open_store(bucket.url, FileKek.create(tmp_path / "other", home=tmp_path / "home"), bucket.options)
    with pytest.raises(StateConflict, match="key file"):
        await stranger.stat(PROJECT, blob.digest)
    assert await read(bucket.store, blob.digest) == b"x"


def test_an_unknown_scheme_is_refused(tmp_path: Path) -> None:
    kek = FileKek.create(tmp_path / "kek", home=tmp_path / "home")
    with pytest.raises(ValueError, match="file:///folder"):
        open_store("ftp://x", kek)


async def test_objects_are_listed_in_order_and_from_a_place_on(bucket: Bucket) -> None:
    objects = bucket.store.objects
    paths = [f"a/b/{number:03}" for number in range(30)] + ["a/c/0", "b/0"]
    await asyncio.gather(*(objects.create(path, b"12345") for path in reversed(paths)))
    assert [each.path async for each in objects.list()] == paths
    assert [each.path async for each in objects.list("a/b", after="a/b/007")] == paths[8:30]
    assert [each.path async for each in objects.list("a", after="a/b/029")] == ["a/c/0"]
    assert [each async for each in objects.list("nothing")] == []
    [only] = [each async for each in objects.list("b")]
    assert only.size == 5 and abs(only.modified.timestamp() - time.time()) < 60


async def test_an_object_is_replaced_only_while_it_is_what_was_seen(bucket: Bucket) -> None:
    objects = bucket.store.objects
    assert not await objects.replace("a/b", b"old", b"new")
    await objects.create("a/b", b"old")
    assert not await objects.replace("a/b", b"other", b"new")
    won = await asyncio.gather(*(objects.replace("a/b", b"old", b"new %d" % number) for number in range(4)))
    assert sum(won) == 1 and await objects.read("a/b") == b"new %d" % won.index(True)
    await objects.remove("a/b")
    assert not await objects.replace("a/b", b"new 0", b"back")
    with pytest.raises(FileNotFoundError):
        await objects.read("a/b")


async def test_a_folder_is_cleared_and_its_neighbors_stay(bucket: Bucket) -> None:
    objects = bucket.store.objects
    for path in ("u/a/1", "u/a/b/2", "u/ab/3"):
        await objects.create(path, b"x")
    await objects.clear("u/a")
    await objects.clear("u/a")
    assert [each.path async for each in objects.list("u")] == ["u/ab/3"]


async def test_a_new_key_is_wrapped_into_all_that_is_stored(bucket: Bucket, tmp_path: Path) -> None:
    kek = FileKek.load(tmp_path / "keys" / "kek", home=tmp_path / "home")
    blobs = [await bucket.store.put(PROJECT, pieces(b"%d" % number)) for number in range(20)]
    before = {path: bucket.read(path) for path in bucket.paths("data")}
    kek.rotate()
    found = [vars(each).copy() async for each in rewrap(bucket.store)]
    assert found[-1]["rewrapped"] == 20 and {path: bucket.read(path) for path in bucket.paths("data")} == before
    assert await used(bucket.store) == {kek.key_id: 20}
    assert await read(bucket.store, blobs[7].digest) == b"7"


async def test_a_blob_that_is_stored_anew_during_a_read_is_not_set_aside(bucket: Bucket) -> None:
    content = os.urandom(6 * MIB)
    blob = await bucket.store.put(PROJECT, pieces(content))
    reading = bucket.store.open(PROJECT, blob.digest)
    first = await anext(reading)
    [path] = bucket.paths("data")
    bucket.replace(path, DAMAGES["all cut off"](b""))
    with pytest.raises(Corrupt):
        await read(bucket.store, blob.digest)
    assert await bucket.store.put(PROJECT, pieces(content)) == blob
    with pytest.raises(Unavailable, match="read it again"):
        _ = [piece async for piece in reading]
    assert first == content[: len(first)] and await read(bucket.store, blob.digest) == content
