"""Which blob store a URL means; what is in it is not known here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kit.blobs.contract import BlobStore
from kit.blobs.encrypted import EncryptedBlobs
from kit.blobs.kek import KeyEncryptionKey
from kit.blobs.objects import LocalObjects, Objects


def _open_local(url: str, options: Mapping[str, str]) -> Objects:
    return LocalObjects(Path(unquote(urlsplit(url).path)))


def _open_s3(url: str, options: Mapping[str, str]) -> Objects:
    from kit.blobs.s3 import S3Objects

    return S3Objects(url, options)


STORES: dict[str, Callable[[str, Mapping[str, str]], Objects]] = {"file": _open_local, "s3": _open_s3}


def open_store(url: str, kek: KeyEncryptionKey, options: Mapping[str, str] | None = None) -> BlobStore:
    """Open `file:///folder` or `s3://bucket/prefix`; ValueError for any other scheme.

    `options` are obstore's (`aws_endpoint`, `aws_access_key_id`, …); what is absent comes from AWS_*.
    """
    scheme = urlsplit(url).scheme
    if scheme not in STORES:
        raise ValueError(f"`{url}` names no blob store; give file:///folder or s3://bucket/prefix")
    return EncryptedBlobs(STORES[scheme](url, options or {}), kek)
