"""The key-encryption key, which wraps the data key of every blob; it never sees a blob."""

import hashlib
import os
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Protocol, Self

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)

from kit.blobs.objects import sync_folder

_KEY_BYTES = 32


class UnwrapError(ValueError):
    """The wrapped key was changed, or wrapped by another key."""


class KeyEncryptionKey(Protocol):
    """Wraps and unwraps data keys: a file now, a vault later. Both may block: they are called in threads."""

    @property
    def key_id(self) -> str:
        """Names the key without telling anything about it; it is stored beside what the key wrapped."""

    def wrap(self, data_key: bytes) -> bytes:
        """Return the data key so that only `unwrap` under the same `key_id` gives it back."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the data key; UnwrapError when the bytes were changed or come from another key."""


class FileKek:
    """A key-encryption key in a file of its own: AES-256 key wrap with padding (RFC 5649)."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError("the key-encryption key must have 32 bytes; `FileKek.create` makes one")
        self._key = key
        self._key_id = hashlib.sha256(b"sluice key id\0" + key).hexdigest()[:16]

    @classmethod
    def create(cls, path: Path, *, home: Path) -> Self:
        """Write a new key (0600) outside `home`, where the blobs are; FileExistsError if there is one."""
        _refuse_inside(path, home)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = os.urandom(_KEY_BYTES)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(b64encode(key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
        return cls(key)

    @classmethod
    def load(cls, path: Path, *, home: Path) -> Self:
        """Read the key; ValueError inside `home`, PermissionError when others may read it."""
        _refuse_inside(path, home)
        if path.stat().st_mode & 0o077:
            raise PermissionError(f"{path} may be read by others; run `chmod 600 {path}`")
        try:
            key = b64decode(path.read_bytes().strip(), validate=True)
        except ValueError as error:
            raise ValueError(f"{path} holds no key-encryption key; restore it from its backup") from error
        return cls(key)

    @property
    def key_id(self) -> str:
        return self._key_id

    def wrap(self, data_key: bytes) -> bytes:
        return aes_key_wrap_with_padding(self._key, data_key)

    def unwrap(self, wrapped: bytes) -> bytes:
        try:
            return aes_key_unwrap_with_padding(self._key, wrapped)
        except (InvalidUnwrap, ValueError) as error:
            raise UnwrapError("the wrapped data key does not belong to this key-encryption key") from error


def _refuse_inside(path: Path, home: Path) -> None:
    if path.resolve().is_relative_to(home.resolve()):
        raise ValueError(
            f"the key-encryption key {path} lies inside {home}, whose copies would then carry "
            "key and data together; keep it elsewhere"
        )
