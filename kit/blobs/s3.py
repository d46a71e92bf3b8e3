"""Named bytes in an S3 bucket by obstore; what the bytes mean is not known here."""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from kit.blobs.objects import Listed
from kit.rpc.errors import Unavailable, from_driver_error

if TYPE_CHECKING:
    from obstore import UpdateVersion

_PART_BYTES = 8 << 20
_LISTED_AT_ONCE = 500


class S3Objects:
    """Objects under `s3://bucket/prefix`; credentials, endpoint and region from `options` or else AWS_*.

    An endpoint that says http:// is believed: whoever sets it wants no TLS.

    A write that dies leaves parts of a multipart upload behind; the bucket needs a lifecycle rule for them.
    """

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        given = dict(options or {})
        endpoint = given.get("aws_endpoint") or os.environ.get("AWS_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL", "")
        plain = {"allow_http": True} if endpoint.startswith("http://") else {}
        self._store = S3Store.from_url(url, config=given, client_options=plain)  # type: ignore[arg-type]

    async def write(self, path: str, parts: AsyncIterator[bytes]) -> None:
        failed: list[Exception] = []

        async def watched() -> AsyncIterator[bytes]:
            try:
                async for part in parts:
                    yield part
            except Exception as error:
                failed.append(error)  # obstore would give it back as words only
                raise

        try:
            with _answering():
                await obstore.put_async(self._store, path, watched(), chunk_size=_PART_BYTES, max_concurrency=4)
        except Exception:
            if failed:
                raise failed[0] from None
            raise

    async def create(self, path: str, content: bytes) -> bool:
        with _answering():
            try:
                await obstore.put_async(self._store, path, content, mode="create")
            except AlreadyExistsError:
                return False
            return True

    async def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        with _answering():
            if start == 0 and length is None:
                return bytes(await (await obstore.get_async(self._store, path)).bytes_async())
            try:
                return bytes(await obstore.get_range_async(self._store, path, start=start, length=length))
            except BaseError:  # S3 refuses a range that starts behind the end
                if (await obstore.head_async(self._store, path))["size"] <= start:
                    return b""
                raise

    async def replace(self, path: str, old: bytes, new: bytes) -> bool:
        with _answering():
            try:
                found = await obstore.get_async(self._store, path)
                if bytes(await found.bytes_async()) != old:
                    return False
                seen: UpdateVersion = {"e_tag": found.meta["e_tag"]}
                await obstore.put_async(self._store, path, new, mode=seen)
            except (FileNotFoundError, PreconditionError):
                return False
            return True

    async def remove(self, path: str, old: bytes | None = None) -> None:
        with _answering(), suppress(FileNotFoundError):
            # S3 deletes on no condition that obstore could state, so between the two somebody may still come.
            if old is None or bytes(await (await obstore.get_async(self._store, path)).bytes_async()) == old:
                await obstore.delete_async(self._store, path)

    async def clear(self, folder: str) -> None:
        with _answering():
            async for found in obstore.list(self._store, folder, chunk_size=_LISTED_AT_ONCE):
                await obstore.delete_async(self._store, [each["path"] for each in found])

    async def list(self, folder: str = "", after: str = "") -> AsyncIterator[Listed]:
        with _answering():
            listing = obstore.list(self._store, folder or None, offset=after or None, chunk_size=_LISTED_AT_ONCE)
            async for found in listing:
                for each in found:
                    yield Listed(each["path"], each["size"], each["last_modified"])


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise Unavailable("the bucket refuses our credentials; check AWS_ACCESS_KEY_ID and its policy") from error
    except BaseError as error:
        raise from_driver_error(error) or Unavailable("the bucket does not answer; check its endpoint") from error
