"""The key under which the embedded NATS encrypts what it keeps: in the home, wrapped by the key-encryption key."""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from pathlib import Path

from kit.blobs.kek import KeyEncryptionKey, UnknownKeyError, UnwrapError
from kit.blobs.local import sync_folder

_KEY_BYTES = 32


def stream_key(path: Path, kek: KeyEncryptionKey) -> str:
    """The key as hex, made at the first start; wrapped anew where another generation of the KEK wraps by now.

    Raises ValueError when it cannot be opened.
    """
    key_id, key = _opened(path, kek)
    if key_id != kek.key_id:
        key_id, wrapped = kek.wrap(key)
        draft = path.with_name(f"{path.name}.new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"key_id": key_id, "wrapped": b64encode(wrapped).decode()}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)  # else a power cut may bring back one that a key wrapped which is destroyed by then
    return key.hex()


def _opened(path: Path, kek: KeyEncryptionKey) -> tuple[str, bytes]:
    if not path.exists():
        return "", os.urandom(_KEY_BYTES)
    try:
        kept = json.loads(path.read_text())
        return kept["key_id"], kek.unwrap(kept["key_id"], b64decode(kept["wrapped"], validate=True))
    except (ValueError, KeyError, TypeError, UnknownKeyError, UnwrapError):
        raise ValueError(
            f"`{path}` cannot be opened with the key-encryption key; restore both from one backup, or remove it and "
            f"`{path.parent / 'jetstream'}`: services send their events again, and what outside systems sent is lost"
        ) from None
