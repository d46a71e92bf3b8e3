"""Content-addressed, encrypted blobs and the artifacts made of them; it knows no resource."""

from kit.blobs.artifacts import fetch_artifact, manifest_digest, store_artifact
from kit.blobs.contract import Blob, BlobStore, Taker
from kit.blobs.encrypted import EncryptedBlobs
from kit.blobs.kek import Generation, KeyEncryptionKey, KeyGenerations
from kit.blobs.keyfile import FileKek
from kit.blobs.store import open_objects, open_store

__all__ = [
    "Blob",
    "BlobStore",
    "EncryptedBlobs",
    "FileKek",
    "Generation",
    "KeyEncryptionKey",
    "KeyGenerations",
    "Taker",
    "fetch_artifact",
    "manifest_digest",
    "open_objects",
    "open_store",
    "store_artifact",
]
