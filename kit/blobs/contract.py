"""What every blob store promises: content-addressed bytes of a project; owners are not known here."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Blob:
    """The SHA-256 of the plaintext, as `sha256:<hex>`, and its size in bytes."""

    digest: str
    size: int


class Taker(Protocol):
    """Whatever takes the bytes of a file and says their address."""

    async def put(self, project: str, chunks: Path, /) -> Blob:
        """As of a `BlobStore`."""


class BlobStore(Protocol):
    """Content-addressed bytes of a project, durable once acknowledged.

    A project is named `projects/{project}`; `projects/{project}/uploads/{upload}` is a space of its own in it.

    A blob is there whole or not at all, under every crash. Bytes that are handed out are those that were
    put, or the read raises Corrupt (CORRUPT_BLOB) and the blob is quarantined: it counts as absent and may
    be put again.
    """

    async def put(self, project: str, chunks: AsyncIterator[bytes] | Path, *, digest: str | None = None) -> Blob:
        """Store the bytes and return their address once they are safe on disk; again is as once.

        Raises Invalid (CHECKSUM_MISMATCH) when they do not have the digest stated, Exhausted (STORAGE_FULL).
        After any error nothing is kept.
        """

    def open(self, project: str, digest: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes from `start`, all or `length` of them, fewer where the blob ends; pieces ≤ 1 MiB.

        The first step raises NotFound when there is no such blob; any step raises Corrupt.
        """

    async def stat(self, project: str, digest: str) -> Blob | None:
        """Return the blob's address and size, None when there is no such blob; Corrupt as in open."""

    async def delete(self, project: str, digest: str) -> None:
        """Remove the blob and every copy of its key, set aside or not; nothing happens when there is none."""

    async def clear(self, space: str) -> None:
        """Remove everything of the space of an upload, and what writes that died have left there.

        ValueError for a project, whose blobs have other owners too.
        """
