"""Assets on a private database and real encrypted files: who owns them, when they go, and what comes in a stream."""

import asyncio
import contextlib
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pydicom
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from PIL import Image
from sqlmodel import select

from kit.auth import Principal
from kit.blobs import FileKek, open_store
from kit.rpc.call import Call, acting
from kit.rpc.errors import Exhausted, Invalid, NotFound, StateConflict
from services.dataset import checks, commands, parts, store
from services.dataset.media import assets
from services.dataset.media.assets import AssetRow, BesideRow, NamedRow
from services.dataset.media.rendering import Renderer
from services.dataset.servicer import AssetServicer, UploadServicer
from services.dataset.supervisor import UploadSupervisor
from services.dataset.uploads.judging import StoredParts
from services.dataset.uploads.staged import Recent
from sluice.dataset import v1 as dataset
from sluice.types import v1 as types

PROJECT = "projects/p"
SPACE = assets.space_of(PROJECT)
ALGORITHM = frozenset({(PROJECT, int(types.ROLE_ALGORITHM))})
DICOM = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


def png(shade):
    sink = io.BytesIO()
    Image.new("L", (6, 4), shade).save(sink, "PNG")
    return sink.getvalue()


def digest_of(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zipped(shades, broken=False):
    sink = io.BytesIO()
    rows = [{"image": f"{n}.png", "query": str(n), "response": "a"} for n in shades]
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("rows.jsonl", jsonl([*rows, {}] if broken else rows))
        for n in shades:
            archive.writestr(f"{n}.png", png(n))
    return sink.getvalue()


class World:
    def __init__(self, database, folder, spare):
        self.database = database
        self.blobs = open_store(f"file://{folder / 'blobs'}", FileKek.create(folder / "kek", home=folder / "home"))
        self.supervisor = UploadSupervisor(database, self.blobs, spare, recent := Recent(), doomed_s=0)
        self.uploads = UploadServicer(database, self.blobs, spare, recent)
        self.renderer = Renderer(spare)
        self.assets = AssetServicer(database, self.blobs, self.supervisor.stored, self.renderer)

    async def open(self, file_name="a.jsonl", content=b"x", parent="d"):
        request = dataset.CreateUploadRequest(
            parent=f"{PROJECT}/datasets/{parent}",
            file_name=file_name,
            size_bytes=len(content),
            digest=digest_of(content),
        )
        return (await self.database.transact(lambda unit: commands.create_upload(unit, request, "me"))).name

    async def checked(self, name, content):
        """Sends the file, and returns the upload when it is over."""

        async def chunks() -> AsyncIterator[dataset.WriteUploadRequest]:
            yield dataset.WriteUploadRequest(name=name, data=content, crc32=zlib.crc32(content))

        await self.uploads.WriteUpload(chunks(), None)
        await self.database.transact(lambda unit: commands.commit_upload(unit, name))
        await self.supervisor.step()
        await self.supervisor.settle()
        async with self.database.read() as session:
            return await store.UPLOADS.get(session, name)

    async def send(self, content, file_name="a.zip"):
        return await self.checked(await self.open(file_name, content), content)

    async def name(self, upload, *contents):
        named = [
            dataset.NamedAsset(path=f"{n}.png", digest=digest_of(c), size_bytes=len(c)) for n, c in enumerate(contents)
        ]
        request = dataset.NameAssetsRequest(name=upload, assets=named)
        return list((await self.assets.NameAssets(request, None)).missing_digests)

    async def write(self, *pieces):
        async def stream() -> AsyncIterator[dataset.WriteAssetsRequest]:
            for each in pieces:
                yield each

        return (await self.assets.WriteAssets(stream(), None)).asset_count

    async def there(self):
        """Digests of the assets that the project knows; each of them, and no other that is asked for, has its blob."""
        async with self.database.read() as session:
            return {row.digest for row in (await session.exec(select(AssetRow))).all()}

    async def rows(self, table):
        async with self.database.read() as session:
            return list((await session.exec(select(table))).all())

    async def tidy(self):
        for _ in range(3):  # a part, then what it named
            await self.supervisor.tidy()


@pytest.fixture
async def world(database, tmp_path, spare):
    wanted = dataset.Dataset(display_name="d", task_type="sft")
    await database.transact(lambda unit: commands.create_dataset(unit, PROJECT, wanted))
    world = World(database, tmp_path, spare)
    yield world
    await world.renderer.close()


def piece(upload, content, digest="", size=1 << 20, wrong=0):
    digest = digest or digest_of(content)
    for start in range(0, len(content), size):
        data = content[start : start + size]
        named = {"name": upload, "digest": digest} if not start else {}
        yield dataset.WriteAssetsRequest(data=data, crc32=zlib.crc32(data) + wrong, **named)


async def test_an_asset_lives_as_long_as_a_part_names_it(world):
    first = await world.send(zipped([1, 2]))
    second = await world.send(zipped([2, 3]))
    await world.tidy()
    async with world.database.read() as session:
        assert list((await store.DATASETS.get(session, f"{PROJECT}/datasets/d")).modalities) == ["text", "image"]
    one, two, three = (digest_of(png(n)) for n in (1, 2, 3))
    assert await world.there() == {one, two, three} and await world.rows(BesideRow) == []
    await world.database.transact(lambda unit: parts.drop(unit, first.dataset_version))
    await world.tidy()
    assert await world.there() == {two, three} and await world.blobs.stat(SPACE, one) is None
    assert await world.blobs.stat(SPACE, two) and len(await world.rows(NamedRow)) == 2
    await world.database.transact(lambda unit: parts.drop(unit, second.dataset_version))
    await world.tidy()
    assert await world.there() == set() and await world.blobs.stat(SPACE, two) is None
    assert await world.rows(NamedRow) == [] == await world.rows(parts.DoomedRow)


async def test_an_upload_that_fails_leaves_no_asset_behind(world):
    upload = await world.send(zipped([1, 2], broken=True))
    assert upload.state == dataset.UPLOAD_STATE_FAILED and upload.violations[0].file == "rows.jsonl"
    assert len(await world.there()) == 2
    await world.tidy()
    assert await world.there() == set() and await world.blobs.stat(SPACE, digest_of(png(1))) is None
    assert await world.rows(BesideRow) == [] == await world.rows(parts.DoomedRow)


async def test_an_asset_that_is_named_again_in_time_stays(world):
    first, digest = await world.open(), digest_of(png(1))
    await world.name(first, png(1))
    await world.write(*piece(first, png(1)))
    await world.database.transact(lambda unit: assets.drop(unit, first))
    assert len(await world.rows(parts.DoomedRow)) == 1
    assert await world.name(await world.open(), png(1)) == []
    await world.tidy()
    assert await world.there() == {digest} and await world.blobs.stat(SPACE, digest)
    assert await world.rows(parts.DoomedRow) == []


async def test_files_beside_are_asked_for_once_and_come_in_one_stream(world):
    content = jsonl([{"image": f"{n}.png", "query": "q", "response": "a"} for n in (0, 1)])
    upload = await world.open(content=content)
    images = [png(1), png(2), png(1)]
    assert await world.name(upload, *images) == [digest_of(png(1)), digest_of(png(2))]
    assert await world.write(*piece(upload, png(1), size=30), *piece("", png(2))) == 2
    assert await world.name(upload, *images) == []
    done = await world.checked(upload, content)
    assert done.state == dataset.UPLOAD_STATE_COMMITTED
    assert {row.type for row in await world.rows(AssetRow)} == {"image/png"}
    with pytest.raises(StateConflict, match="COMMITTED and takes no assets"):
        await world.name(upload, png(5))


async def test_a_stream_that_is_not_what_was_named_keeps_nothing(world):
    upload = await world.open()
    await world.name(upload, png(1))
    cases = [
        (piece(upload, png(1), wrong=1), Invalid, "checksum"),
        (piece(upload, png(1)[::-1], digest=digest_of(png(1))), Invalid, "the bytes have the digest"),
        (piece(upload, png(1) + b"x", digest=digest_of(png(1))), StateConflict, "more have come"),
        (piece(upload, png(1)[:-1], digest=digest_of(png(1))), StateConflict, "fewer have come"),
        (piece(upload, png(9)), Invalid, "was not named"),
        (piece("", png(1)), Invalid, "first piece names the upload"),
        (piece(f"{PROJECT}/datasets/d/uploads/none", png(1)), NotFound, "none"),
    ]
    for pieces, kind, said in cases:
        with pytest.raises(kind, match=said):
            await world.write(*pieces)
        assert await world.there() == set() and await world.blobs.stat(SPACE, digest_of(png(1))) is None


async def test_an_asset_whose_bytes_are_gone_is_asked_for_again(world):
    content = jsonl([{"image": "0.png", "query": "q", "response": "a"}])
    upload = await world.open(content=content)
    await world.name(upload, png(1))
    await world.write(*piece(upload, png(1)))
    await world.blobs.delete(SPACE, digest_of(png(1)))
    failed = await world.checked(upload, content)
    assert [(each.kind, each.row) for each in failed.violations] == [("missing-asset", 1)]
    assert await world.name(await world.open(content=content), png(1)) == [digest_of(png(1))]


async def test_a_part_names_only_what_its_upload_brought(world):
    upload, digest = await world.open(), digest_of(png(1))
    with pytest.raises(StateConflict):
        await world.database.transact(lambda unit: assets.name(unit, PROJECT, "part", {"images": [digest]}, upload))
    await world.name(upload, png(1))
    with pytest.raises(StateConflict):  # named, and never sent
        await world.database.transact(lambda unit: assets.name(unit, PROJECT, "part", {"images": [digest]}, upload))
    await world.write(*piece(upload, png(1)))
    await world.database.transact(lambda unit: assets.name(unit, PROJECT, "part", {"images": [digest]}, upload))
    assert len(await world.rows(NamedRow)) == 1


async def closed(world, name):
    """A dataset of the caller's, which nobody else may know of."""
    wanted = dataset.Dataset(display_name=name, task_type="sft", access=dataset.DATASET_ACCESS_GRANTED)
    await world.database.transact(lambda unit: commands.create_dataset(unit, PROJECT, wanted))


async def test_who_knows_a_digest_has_no_image_by_it(world):
    content = jsonl([{"image": "0.png", "query": "q", "response": "a"}])
    with acting(Call(Principal("keys/owner", ALGORITHM))):
        await closed(world, "secret")
        secret = await world.open(content=content, parent="secret")
        assert await world.name(secret, png(1)) == [digest_of(png(1))]
        await world.write(*piece(secret, png(1)))
        assert (await world.checked(secret, content)).state == dataset.UPLOAD_STATE_COMMITTED
    with acting(Call(Principal("keys/other", ALGORITHM))):
        upload = await world.open(content=content)
        assert await world.name(upload, png(1)) == [digest_of(png(1))]
        failed = await world.checked(upload, content)
        assert [(each.kind, each.row) for each in failed.violations] == [("missing-asset", 1)]
        again = await world.open(content=content)
        assert await world.name(again, png(1)) == [digest_of(png(1))]
        await world.write(*piece(again, png(1)))
        assert (await world.checked(again, content)).state == dataset.UPLOAD_STATE_COMMITTED
    with acting(Call(Principal("keys/owner", ALGORITHM))):  # who may read what has it need not send it
        await closed(world, "third")
        third = await world.open(content=content, parent="third")
        assert await world.name(third, png(1)) == []
        assert (await world.checked(third, content)).state == dataset.UPLOAD_STATE_COMMITTED


async def test_the_word_of_a_checking_process_makes_no_asset(world):
    upload, head = await world.open(), checks.AssetHead(digest_of(png(1)), "image/png", 6, 4)
    await world.name(upload, png(1))  # and never sent
    for content in (b"", b"something else"):
        with contextlib.suppress(Invalid):
            async with world.supervisor.stored.keeping(upload) as keeping:
                await keeping.add(checks.Asset(head, memoryview(content)))
                await keeping.flush()
        assert await world.there() == set()


async def test_what_others_store_in_the_project_is_not_deleted_with_assets(world):
    adapter = await world.blobs.put(PROJECT, once(b"an adapter"))
    for sent in (False, True):
        upload = await world.open()
        await world.name(upload, b"an adapter")
        if sent:
            await world.write(*piece(upload, b"an adapter"))
        await world.database.transact(lambda unit, upload=upload: commands.expire_upload(unit, upload))
        await world.tidy()
        assert await world.blobs.stat(SPACE, adapter.digest) is None and await world.there() == set()
        assert await world.blobs.stat(PROJECT, adapter.digest)


async def test_an_asset_whose_path_takes_another_goes(world):
    upload = await world.open()
    for content in (png(1), png(2)):
        await world.name(upload, content)
        await world.write(*piece(upload, content))
    await world.tidy()
    assert await world.there() == {digest_of(png(2))} and await world.blobs.stat(SPACE, digest_of(png(1))) is None


async def test_an_asset_that_comes_while_its_upload_ends_goes(world):
    upload = await world.open()
    await world.name(upload, png(1), png(2))

    async def ends_meanwhile() -> AsyncIterator[dataset.WriteAssetsRequest]:
        first, *rest = piece(upload, png(1), size=30)
        yield first
        await world.database.transact(lambda unit: commands.expire_upload(unit, upload))
        await world.tidy()
        for each in [*rest, *piece("", png(2))]:
            yield each

    with pytest.raises(StateConflict, match="EXPIRED and takes no assets"):
        await world.assets.WriteAssets(ends_meanwhile(), None)
    assert await world.blobs.stat(SPACE, digest_of(png(1)))
    await world.tidy()
    assert await world.there() == set() and await world.blobs.stat(SPACE, digest_of(png(1))) is None


class Paused:
    """Blobs of which one is deleted as slowly as the test wants."""

    def __init__(self, blobs):
        self.put, self._blobs = blobs.put, blobs
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def delete(self, space, digest):
        self.begun.set()
        await self.go.wait()
        await self._blobs.delete(space, digest)


async def test_an_asset_that_is_sent_while_it_is_deleted_stays(world):
    first, digest = await world.open(), digest_of(png(1))
    await world.name(first, png(1))
    await world.write(*piece(first, png(1)))
    await world.database.transact(lambda unit: commands.expire_upload(unit, first))
    await world.database.transact(lambda unit: assets.drop(unit, first))
    paused = Paused(world.blobs)
    stored = StoredParts(world.database, paused, timedelta())
    world.assets = AssetServicer(world.database, world.blobs, stored, world.renderer)
    sweeping = asyncio.create_task(stored.sweep())
    await paused.begun.wait()
    second = await world.open()
    assert await world.name(second, png(1)) == [digest]
    sending = asyncio.create_task(world.write(*piece(second, png(1))))
    await asyncio.wait([sending], timeout=0.1)  # it would be done by then, if it did not wait
    paused.go.set()
    await asyncio.gather(sweeping, sending)
    await world.tidy()
    assert await world.there() == {digest} and await world.blobs.stat(SPACE, digest)


async def test_two_that_send_the_same_asset_share_it(world):
    uploads = [await world.open(), await world.open()]
    for upload in uploads:
        await world.name(upload, png(1))
    await asyncio.gather(*(world.write(*piece(upload, png(1), size=30)) for upload in uploads))
    assert len(await world.rows(AssetRow)) == 1
    await world.database.transact(lambda unit: commands.expire_upload(unit, uploads[0]))
    await world.tidy()
    assert await world.blobs.stat(SPACE, digest_of(png(1)))


async def test_dicom_files_are_cleaned_where_the_dataset_asks_for_it(world):
    def asks(unit):
        wanted = dataset.Dataset(name=f"{PROJECT}/datasets/d", deidentify=dataset.DEIDENTIFY_MASK)
        return commands.update_dataset(unit, wanted, FieldMask(paths=["deidentify"]))

    await world.database.transact(asks)
    patients = set()
    for name in ("a", "b"):
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("rows.jsonl", jsonl([{"image": "1.dcm", "query": name, "response": "a"}]))
            archive.writestr("1.dcm", DICOM.read_bytes())
        upload = await world.send(sink.getvalue())
        await world.tidy()
        (digest,) = await world.there()
        content = b"".join([each async for each in world.blobs.open(SPACE, digest)])
        cleaned = pydicom.dcmread(io.BytesIO(content))
        patients.add(cleaned.PatientID)
        assert cleaned.PatientIdentityRemoved == "YES" and b"CompressedSamples" not in content
        assert upload.state == dataset.UPLOAD_STATE_COMMITTED
    assert len(patients) == 1


async def test_what_lay_beside_rows_is_cleaned_and_not_kept_as_it_came(world):
    wanted = dataset.Dataset(display_name="m", task_type="sft", deidentify=dataset.DEIDENTIFY_MASK)
    await world.database.transact(lambda unit: commands.create_dataset(unit, PROJECT, wanted))
    sink = io.BytesIO()
    Image.new("RGB", (6, 4)).save(sink, "JPEG", comment=b"of somebody")
    content = jsonl([{"image": f"{n}.png", "query": str(n), "response": "a"} for n in range(2)])
    upload = await world.open(content=content, parent="m")
    await world.name(upload, *(came := (sink.getvalue(), DICOM.read_bytes())))
    await world.write(*piece(upload, came[0]), *piece("", came[1]))
    assert (await world.checked(upload, content)).state == dataset.UPLOAD_STATE_COMMITTED
    await world.tidy()
    found = [b"".join([each async for each in world.blobs.open(SPACE, digest)]) for digest in await world.there()]
    assert len(found) == 2 and not [each for each in found if b"of somebody" in each or b"CompressedSamples" in each]
    assert all([await world.blobs.stat(SPACE, digest_of(each)) is None for each in came])


async def once(content):
    yield content


async def test_images_are_shown_by_a_process_that_may_die(world):
    shown = await world.renderer.png(f"{PROJECT}/datasets/d", once(DICOM.read_bytes()), 0)
    assert Image.open(io.BytesIO(shown)).size == (128, 128)
    process = world.renderer._checker.process
    with pytest.raises(Invalid, match="no image format"):
        await world.renderer.png(f"{PROJECT}/datasets/d", once(b"no image"), 0)
    with pytest.raises(Invalid, match="frame 7 is asked for"):
        await world.renderer.png(f"{PROJECT}/datasets/d", once(DICOM.read_bytes()), 7)
    assert world.renderer._checker.process is process
    process.kill()
    process.wait()
    assert await world.renderer.png(f"{PROJECT}/datasets/d", once(png(3)), 0) == png(3)
    assert (other := world.renderer._checker.process) is not process
    await world.renderer.png(f"{PROJECT}/datasets/e", once(png(3)), 0)
    assert world.renderer._checker.process is not other and other.poll() is not None


async def test_an_image_that_stalls_the_process_ends_it(spare):
    renderer = Renderer(spare, max_s=0.0)
    with pytest.raises(Exhausted, match="too much time"):
        await renderer.png(PROJECT, once(png(3)), 0)
    await renderer.close()
