"""A client that vanishes and errs at any place of an upload: it goes on where it was, and ends with its own bytes."""

import asyncio
import hashlib
import random

import grpc
import pytest

from kit.rpc.errors import Invalid, StateConflict
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from tests.integration.uploads import CHUNK, Uploads, chunks, fault_of, jsonl
from tests.seed import SEED

WRONG_OFFSET = (StateConflict, errors.ERROR_REASON_WRONG_OFFSET)
CORRUPTED = (Invalid, errors.ERROR_REASON_CHECKSUM_MISMATCH)


@pytest.fixture
async def mine(running, project):
    async with running.channel("dataset") as channel:
        uploads = Uploads(channel, project)
        await uploads.create()
        yield uploads


def corrupted(parts, place):
    """A bit of a chunk flips on its way."""
    data = bytearray(parts[place].data)
    data[len(data) // 2] ^= 1
    bad = dataset.WriteUploadRequest(
        name=parts[place].name, offset=parts[place].offset, data=bytes(data), crc32=parts[place].crc32
    )
    return [*parts[:place], bad]


def reordered(parts, place):
    return [*parts[: place - 1], parts[place], parts[place - 1]]


def repeated(parts, place):
    return [*parts[:place], parts[place - 1], *parts[place:]]


def left_out(parts, place):
    return [*parts[:place], *parts[place + 1 :]]


HARM = {corrupted: CORRUPTED, reordered: WRONG_OFFSET, repeated: WRONG_OFFSET, left_out: WRONG_OFFSET}


async def vanish(mine, parts):
    """Sends chunks and is gone; how many of them have come nobody can know."""
    sent = asyncio.Event()

    async def stream():
        for part in parts:
            yield part
        sent.set()
        await asyncio.Event().wait()

    call = mine.uploads.WriteUpload(stream())
    await sent.wait()
    call.cancel()
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await call


async def stored(mine, name):
    return (await mine.uploads.GetUpload(dataset.GetUploadRequest(name=name))).upload.committed_bytes


async def test_a_client_that_vanishes_and_errs_at_any_place_ends_with_its_file(mine):
    draw, content = random.Random(SEED), jsonl(24, size=CHUNK, mark=str(SEED))
    upload = await mine.open(content)
    for harm in draw.sample([*HARM, None, None, None], 7):
        begin = await stored(mine, upload.name)
        parts = chunks(upload.name, content, start=begin)
        if len(parts) < 4:
            break
        place = draw.randint(1, len(parts) - 2)
        if harm is None:
            await vanish(mine, parts[:place])
        else:
            fault = await fault_of(mine.write(*harm(parts, place)))
            # What a client that vanished had sent may have been stored since it was looked; and gRPC's own client may
            # fail at sending on before it has read why it was refused.
            told = (type(fault), fault.reason) in (HARM[harm], WRONG_OFFSET) or "from Core" in fault.message
            assert told, (harm.__name__, fault.message)
        assert begin <= await stored(mine, upload.name) <= len(content)
    while (begin := await stored(mine, upload.name)) < len(content):
        try:
            await mine.write(*chunks(upload.name, content, start=begin))
        except grpc.aio.AioRpcError:  # what the client that vanished had sent was stored meanwhile
            continue
    ended = await mine.commit(upload.name)
    assert ended.state == dataset.UPLOAD_STATE_COMMITTED and ended.rows_checked == 24
    request = dataset.GetDatasetVersionRequest(name=ended.dataset_version)
    version = (await mine.versions.GetDatasetVersion(request)).dataset_version
    assert version.source_digest == f"sha256:{hashlib.sha256(content).hexdigest()}" and version.version == 1
