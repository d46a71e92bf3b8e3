"""Content-addressed, encrypted blobs and the artifacts made of them; it knows no resource."""

from kit.blobs.artifacts import fetch_artifact, manifest_digest, store_artifact
from kit.blobs.contract import Blob, BlobStore
from kit.blobs.kek import FileKek, KeyEncryptionKey
from kit.blobs.store import open_store

__all__ = [
    "Blob",
    "BlobStore",
    "FileKek",
    "KeyEncryptionKey",
    "fetch_artifact",
    "manifest_digest",
    "open_store",
    "store_artifact",
]
