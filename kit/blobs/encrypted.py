"""The one BlobStore: frames and envelopes over any Objects; where the objects lie is not known here."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from kit.blobs.contract import Blob
from kit.blobs.frames import (
    FRAME_BYTES,
    STORED_FRAME_BYTES,
    Envelope,
    ForeignKeyError,
    Sealing,
    TamperedError,
    decode_envelope,
    decrypt_frames,
    last_index,
)
from kit.blobs.kek import KeyEncryptionKey
from kit.blobs.objects import Objects, in_thread
from kit.rpc.errors import Corrupt, Invalid, NotFound, StateConflict, Unavailable, from_driver_error
from kit.telemetry import get_log
from sluice.errors import v1 as errors

log = get_log(__name__)

_BATCH_BYTES = 4 * FRAME_BYTES
# A project, or a space of an upload inside it, whose blobs can be deleted without taking anything from others.
_PROJECT = re.compile(r"projects/[a-z0-9][a-z0-9-]{0,62}(/uploads/[a-z0-9-]{1,63})?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class EncryptedBlobs:
    """A BlobStore over any Objects: data under `data/` by random id, envelopes under `blobs/` by digest.

    The data is written first and the envelope last, if none is there: that is the commit. Of two writers of
    the same bytes one wins and the other removes its data. Data whose envelope never came is garbage.
    """

    def __init__(self, objects: Objects, kek: KeyEncryptionKey) -> None:
        self.objects = objects
        self.kek = kek

    async def put(self, project: str, chunks: AsyncIterator[bytes] | Path, *, digest: str | None = None) -> Blob:
        if digest is not None:
            _envelope_path(project, digest)
        source = _read_file(chunks) if isinstance(chunks, Path) else chunks
        sealing = Sealing()
        data = _data_path(project, sealing.object_id)
        try:
            await self.objects.write(data, _encrypted(sealing, source, digest))
        except BaseException as error:
            await self.objects.remove(data)
            if isinstance(error, OSError) and (fault := from_driver_error(error)):
                raise fault from error
            raise
        # From here an error leaves the data as garbage: whether the envelope was written may be unknown.
        envelope = await asyncio.to_thread(sealing.envelope, self.kek, project)
        if not await self._commit(project, sealing.digest, envelope):
            await self.objects.remove(data)
        return Blob(sealing.digest, sealing.size)

    async def _commit(self, project: str, digest: str, envelope: bytes) -> bool:
        """Create the envelope; False when a sound one is there. A damaged one makes way."""
        path = _envelope_path(project, digest)
        while not await self.objects.create(path, envelope):
            try:
                if (found := await self._find(project, digest)) is not None:
                    last = last_index(found[0].size)
                    await self._frames(*found, last, last)
                    return False
            except (Corrupt, NotFound):
                continue
        return True

    async def open(self, project: str, digest: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        if start < 0 or (length or 0) < 0:
            raise Invalid(f"a range starts at 0 or later and has no negative length, not {start} and {length}")
        found = await self._find(project, digest)
        if found is None:
            raise NotFound(f"there is no blob `{digest}` in `{project}`", resource=("Blob", digest))
        envelope, key = found
        end = envelope.size if length is None else min(start + length, envelope.size)
        position, frames = start, 1  # one frame first, so that the first bytes come soon
        while position < end:
            first = position // FRAME_BYTES
            last = min(first + frames - 1, (end - 1) // FRAME_BYTES)
            for index, frame in enumerate(await self._frames(envelope, key, first, last), first):
                offset = index * FRAME_BYTES
                piece = frame[max(position - offset, 0) : end - offset]
                position += len(piece)
                yield piece
            frames = _BATCH_BYTES // FRAME_BYTES
        if envelope.size == 0:
            await self._frames(envelope, key, 0, 0)

    async def stat(self, project: str, digest: str) -> Blob | None:
        found = await self._find(project, digest)
        return Blob(found[0].digest, found[0].size) if found else None

    async def delete(self, project: str, digest: str) -> None:
        for path in (_envelope_path(project, digest), _aside_path(project, digest)):
            await self._remove(project, path)

    async def drop_aside(self, project: str, digest: str) -> None:
        """Remove what was quarantined of a blob, once its bytes were stored again."""
        await self._remove(project, _aside_path(project, digest))

    async def clear(self, space: str) -> None:
        _check_project(space)
        if "/uploads/" not in space:
            raise ValueError(f"`{space}` is a project, whose blobs have many owners")
        await self.objects.clear(space)

    async def set_aside(self, project: str, digest: str, why: str) -> Corrupt:
        """Quarantine a blob that something else than a read has found damaged; NotFound if it is gone."""
        try:
            content = await self.objects.read(_envelope_path(project, digest))
        except FileNotFoundError:
            raise NotFound(f"there is no blob `{digest}` in `{project}`", resource=("Blob", digest)) from None
        return await self._quarantine(project, digest, content, TamperedError(why))

    async def _remove(self, project: str, path: str) -> None:
        try:
            envelope = decode_envelope(await self.objects.read(path))
        except FileNotFoundError:
            return
        except TamperedError:
            await self.objects.remove(path)
            return
        await self.objects.remove(path)
        await self.objects.remove(_data_path(project, envelope.object_id))

    async def _find(self, project: str, digest: str) -> tuple[Envelope, bytes] | None:
        try:
            content = await self.objects.read(_envelope_path(project, digest))
        except FileNotFoundError:
            return None
        try:
            envelope = decode_envelope(content)
            return envelope, await asyncio.to_thread(envelope.open, self.kek, project, digest)
        except ForeignKeyError as error:
            raise StateConflict(
                f"the blobs were encrypted under the key `{error}`, and the key-encryption key given is "
                f"`{self.kek.key_id}`; start with the key file that they were written with"
            ) from error
        except TamperedError as error:
            raise await self._quarantine(project, digest, content, error) from error

    async def _frames(self, envelope: Envelope, key: bytes, first: int, last: int) -> list[bytes]:
        count = last - first + 1
        tail = last_index(envelope.size) - last
        length = count * STORED_FRAME_BYTES
        if tail == 0:
            length += envelope.size - last * FRAME_BYTES - FRAME_BYTES
        try:
            stored = await self.objects.read(
                _data_path(envelope.project, envelope.object_id), first * STORED_FRAME_BYTES, length
            )
            if len(stored) != length:
                raise TamperedError("the data is cut short")
            return await asyncio.to_thread(lambda: list(decrypt_frames(key, envelope, first, stored)))
        except (FileNotFoundError, TamperedError) as error:
            content = await self._present(envelope, error)
            raise await self._quarantine(envelope.project, envelope.digest, content, error) from error

    async def _present(self, envelope: Envelope, cause: Exception) -> bytes:
        """The envelope as it is stored now. Raises NotFound when there is none, Unavailable when it is a new one."""
        blob = ("Blob", envelope.digest)
        try:
            content = await self.objects.read(_envelope_path(envelope.project, envelope.digest))
        except FileNotFoundError:
            raise NotFound(f"the blob `{envelope.digest}` was deleted during the read", resource=blob) from cause
        with suppress(TamperedError):
            if decode_envelope(content).object_id != envelope.object_id:
                # Somebody else found the damage first, and the bytes were stored again: those are sound.
                what = f"the blob `{envelope.digest}` was stored anew during the read; read it again"
                raise Unavailable(what, resource=blob) from cause
        return content

    async def _quarantine(self, project: str, digest: str, content: bytes, cause: Exception) -> Corrupt:
        path = _envelope_path(project, digest)
        await self.objects.create(_aside_path(project, digest), content)
        await self.objects.remove(path, content)
        what = str(cause) if isinstance(cause, TamperedError) else "the data is missing"
        log.error("blob_quarantined", project=project, digest=digest, cause=what)
        return Corrupt(
            f"the blob `{digest}` in `{project}` is damaged ({what}) and was set aside; upload it again",
            resource=("Blob", digest),
        )


def _envelope_path(project: str, digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise Invalid(f"`{digest[:80]}` is no digest; give sha256:<64 hex digits>")
    _check_project(project)
    name = digest.removeprefix("sha256:")
    return f"{project}/blobs/{name[:2]}/{name}"


def _aside_path(project: str, digest: str) -> str:
    return f"{project}/quarantine/{digest.removeprefix('sha256:')}"


def _data_path(project: str, object_id: str) -> str:
    _check_project(project)
    return f"{project}/data/{object_id[:2]}/{object_id}"


def _check_project(project: str) -> None:
    if not _PROJECT.fullmatch(project):
        raise Invalid(f"`{project[:80]}` names no project; give projects/<id>")


async def _encrypted(sealing: Sealing, source: AsyncIterator[bytes], stated: str | None) -> AsyncIterator[bytes]:
    gathered: list[bytes] = []
    size = 0
    async for chunk in source:
        gathered.append(chunk)
        size += len(chunk)
        if size >= _BATCH_BYTES:
            yield await in_thread(sealing.update, b"".join(gathered))
            gathered, size = [], 0
    yield await asyncio.to_thread(sealing.update, b"".join(gathered))
    if stated is not None and sealing.digest != stated:
        raise Invalid(
            f"the bytes have the digest `{sealing.digest}`, not `{stated}`; send them again",
            reason=errors.ERROR_REASON_CHECKSUM_MISMATCH,
        )
    yield await asyncio.to_thread(sealing.finish)


async def _read_file(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := await in_thread(file.read, _BATCH_BYTES):
            yield chunk
