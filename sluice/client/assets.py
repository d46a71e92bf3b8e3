"""Files beside rows on their way to the suite, and assets on their way back; what is in them is not known here.

A file that the suite has is not sent. So an upload that broke off goes on where it stopped, without a word about it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kit.rpc.errors import Fault, Internal, Invalid, Unavailable
from sluice.client.connection import Connection
from sluice.dataset import v1 as dataset
from sluice.rows.media import MAX_BYTES
from sluice.rows.paths import is_litter, may_be_asset, path_of

CHUNK_BYTES = 1 << 20
#: Files that are named in one call, and that are sent in one stream.
NAMED_AT_ONCE, SENT_AT_ONCE = 1000, 256
STREAMS = 4
#: What is sent in one stream, which is stored when it is answered: all streams together are one chunk ahead at most, or
#: a larger file each.
SENT_BYTES = 2 << 20
HASHERS = 4
#: Breaks in a row that bring no file further before it is given up.
MAX_BREAKS = 6
READ_AT_ONCE = 64


class Local(NamedTuple):
    """A file here: where it is, its path as rows name it, its digest `sha256:<hex>` and the number of its bytes."""

    file: Path
    path: str
    digest: str
    size_bytes: int


#: Hears how many bytes are done, of how many.
OnBytes = Callable[[int, int], None]


async def lying_in(folder: Path, told: OnBytes) -> list[Local]:
    """The images and sounds below a folder, hashed. Raises Invalid for one that is too large or cannot be read."""
    found = await asyncio.to_thread(lambda: list(_files(folder)))
    total, done, limit = sum(size for _, _, size in found), 0, asyncio.Semaphore(HASHERS)

    async def hashed(file: Path, path: str, size: int) -> Local:
        nonlocal done
        async with limit:
            digest = await asyncio.to_thread(_digest, file)
        done += size
        told(done, total)
        return Local(file, path, digest, size)

    return list(await asyncio.gather(*(hashed(*each) for each in found)))


def identity(files: Sequence[Local]) -> str:
    """A digest of all paths and digests, equal for equal folders; empty for none."""
    lines = "".join(f"{each.digest} {each.path}\n" for each in sorted(files, key=lambda each: each.path))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}" if files else ""


async def send(connection: Connection, upload: str, files: Sequence[Local], told: OnBytes) -> None:
    """Tells an upload which files lie beside it, and sends those that the suite lacks, in several streams.

    Raises Invalid when a file has changed meanwhile, Unavailable when the suite stays away.
    """
    stub, breaks = dataset.AssetServiceStub(connection.channel), 0
    lacking = await _patiently(lambda: _name(connection, upload, files))
    total = sum(each.size_bytes for each in lacking)
    while lacking:
        left = deque(lacking)
        before = len(lacking)

        async def stream(left: deque[Local] = left, lacking: Sequence[Local] = lacking) -> None:
            while left:
                await connection.send(stub.WriteAssets, _pieces(upload, left))
                told(total - sum(each.size_bytes for each in left), total)

        results = await asyncio.gather(*(stream() for _ in range(STREAMS)), return_exceptions=True)
        faults = [each for each in results if isinstance(each, BaseException)]
        if not faults:
            return
        if hard := [each for each in faults if not _passing(each)]:
            raise hard[0]
        lacking = await _patiently(lambda: _name(connection, upload, files))
        breaks = 0 if len(lacking) < before else breaks + 1
        if breaks > MAX_BREAKS:
            raise faults[0]
        await asyncio.sleep(min(0.1 * 2**breaks, 3.0))


async def read(
    connection: Connection, version: str, digests: Sequence[str], *, png: bool = False, frame: int = 0
) -> AsyncIterator[tuple[dataset.Asset, bytes]]:
    """Assets that rows of a version name, whole, in the order of the digests; as PNG where that is wanted.

    Raises NotFound for one that no row of the version names, Invalid for one that cannot be shown.
    """
    stub = dataset.AssetServiceStub(connection.channel)
    rendering = dataset.RENDERING_PNG if png else dataset.RENDERING_ORIGINAL
    for start in range(0, len(digests), READ_AT_ONCE):
        some = digests[start : start + READ_AT_ONCE]
        request = dataset.ReadAssetsRequest(name=version, digests=some, rendering=rendering, frame=frame)
        about, content = None, bytearray()
        async for piece in connection.stream(stub.ReadAssets, request):
            if piece.HasField("asset"):
                if about is not None:
                    yield about, bytes(content)
                about, content = piece.asset, bytearray()
            content += piece.data
        if about is not None:
            yield about, bytes(content)


def list_of(connection: Connection, version: str, limit: int = 0) -> AsyncIterator[dataset.Asset]:
    """What is known of the assets that rows of a version name, by digest."""
    stub = dataset.AssetServiceStub(connection.channel)
    request = dataset.ListAssetsRequest(parent=version)
    return connection.pages(stub.ListAssets, request, lambda page: page.assets, limit=limit)


async def _name(connection: Connection, upload: str, files: Sequence[Local]) -> list[Local]:
    """Names all files; returns those whose bytes are lacking, each content once."""
    stub = dataset.AssetServiceStub(connection.channel)
    missing: set[str] = set()
    for start in range(0, len(files), NAMED_AT_ONCE):
        some = files[start : start + NAMED_AT_ONCE]
        named = [dataset.NamedAsset(path=each.path, digest=each.digest, size_bytes=each.size_bytes) for each in some]
        request = dataset.NameAssetsRequest(name=upload, assets=named)
        answer: dataset.NameAssetsResponse = await connection.call(stub.NameAssets, request)
        missing.update(answer.missing_digests)
    once = {each.digest: each for each in files if each.digest in missing}
    return list(once.values())


async def _patiently(work: Callable[[], Awaitable[list[Local]]]) -> list[Local]:
    """The work, again while the suite is away."""
    for attempt in range(MAX_BREAKS):
        try:
            return await work()
        except Unavailable:
            await asyncio.sleep(min(0.1 * 2**attempt, 3.0))
    return await work()


async def _pieces(upload: str, left: deque[Local]) -> AsyncIterator[dataset.WriteAssetsRequest]:
    """Some of the files that are left, one after the other."""
    name, sent = upload, 0
    for _ in range(SENT_AT_ONCE):
        if not left or (sent and sent + left[0].size_bytes > SENT_BYTES):
            return
        each = left.popleft()
        digest, size = each.digest, 0
        async for data in _chunks(each):
            size += len(data)
            if size <= each.size_bytes:
                yield dataset.WriteAssetsRequest(name=name, digest=digest, data=data, crc32=zlib.crc32(data))
            name, digest = "", ""
        if size != each.size_bytes:
            raise Invalid(f"`{each.file}` has changed while it was sent; leave it as it is, and upload once more")
        sent += size


async def _chunks(of: Local) -> AsyncIterator[bytes]:
    try:
        with of.file.open("rb") as file:
            while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield data
    except OSError as error:
        raise _unreadable(of.file, error) from error


def _files(folder: Path) -> Iterator[tuple[Path, str, int]]:
    if not folder.is_dir():
        raise Invalid(f"there is no folder `{folder}`; give the folder that the paths in rows start in")
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(where, name)
            path = path_of(file.relative_to(folder).as_posix())
            if path is None or is_litter(path) or not may_be_asset(path) or not file.is_file():
                continue
            size = file.stat().st_size
            if size > MAX_BYTES:
                raise Invalid(f"`{file}` has more than {MAX_BYTES >> 20} MiB; scale it down, or cut it into several")
            if size:
                yield file, path, size


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: OSError) -> Invalid:
    return Invalid(f"`{file}` cannot be read ({error.strerror}); check that it is there, and its permissions")


def _passing(fault: BaseException) -> bool:
    """Whether sending again can help."""
    broken = isinstance(fault, Internal) and "Internal error from Core" in fault.message
    return isinstance(fault, Unavailable) or (isinstance(fault, Fault) and broken)
