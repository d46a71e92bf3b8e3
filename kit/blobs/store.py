"""Which blob store a URL means; what is in it is not known here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kit.blobs.encrypted import EncryptedBlobs
from kit.blobs.kek import KeyEncryptionKey
from kit.blobs.local import LocalObjects
from kit.blobs.objects import Objects


def _open_local(url: str, options: Mapping[str, str]) -> Objects:
    return LocalObjects(Path(unquote(urlsplit(url).path)))


def _open_s3(url: str, options: Mapping[str, str]) -> Objects:
    from kit.blobs.s3 import S3Objects

    return S3Objects(url, options)


STORES: dict[str, Callable[[str, Mapping[str, str]], Objects]] = {"file": _open_local, "s3": _open_s3}


def open_objects(url: str, options: Mapping[str, str] | None = None) -> Objects:
    """Open `file:///folder` or `s3://bucket/prefix` as named bytes; ValueError for any other scheme.

    `options` are obstore's (`aws_endpoint`, `aws_access_key_id`, …); what is absent comes from AWS_*.
    """
    scheme = urlsplit(url).scheme
    if scheme not in STORES:
        raise ValueError(f"`{url}` names no blob store; give file:///folder or s3://bucket/prefix")
    return STORES[scheme](url, options or {})


def open_store(url: str, kek: KeyEncryptionKey, options: Mapping[str, str] | None = None) -> EncryptedBlobs:
    """Open the blobs in `file:///folder` or `s3://bucket/prefix`; arguments and errors as of `open_objects`."""
    return EncryptedBlobs(open_objects(url, options), kek)
