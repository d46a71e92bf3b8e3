"""How a blob is encrypted: frames of 1 MiB under a key of its own, and an envelope; it does no I/O.

Each frame is AES-256-GCM with a nonce of (index, is it the last), as in the STREAM construction (Hoang,
Reyhanitabar, Rogaway, Vizár 2015), so cutting, reordering and flipping are detected and any frame can be read
alone. A data key encrypts one object once, which is what makes counted nonces safe. The envelope lies beside
the data: it wraps the data key and seals digest, size and project under it. Wrapping the data key anew and replacing
the envelope rotates the key-encryption key, removing it shreds the blob.
"""

import hashlib
import os
from collections.abc import Iterator
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kit.blobs.kek import KeyEncryptionKey, UnknownKeyError, UnwrapError

FRAME_BYTES = 1 << 20
TAG_BYTES = 16
STORED_FRAME_BYTES = FRAME_BYTES + TAG_BYTES
_SEAL_NONCE = b"\xff" * 12


class TamperedError(ValueError):
    """Stored bytes are not those that were written."""


class ForeignKeyError(ValueError):
    """The envelope was wrapped by another key-encryption key; nothing is wrong with the bytes."""


class Envelope(msgspec.Struct, frozen=True):
    """What is stored beside the data of a blob; `object_id` names the data."""

    project: str
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    object_id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    key_id: str
    wrapped_key: bytes
    seal: bytes
    version: int = 1

    def open(self, kek: KeyEncryptionKey, project: str, digest: str) -> bytes:
        """Return the data key; TamperedError unless all is as sealed for this project and digest.

        ForeignKeyError when no generation of the key-encryption key is the one that wrapped it.
        """
        if (self.version, self.project, self.digest) != (1, project, digest):
            raise TamperedError("the envelope")
        try:
            key = kek.unwrap(self.key_id, self.wrapped_key)
            AESGCM(key).decrypt(_SEAL_NONCE, self.seal, _sealed(project, digest, self.size, self.object_id))
        except UnknownKeyError:
            raise ForeignKeyError(self.key_id) from None
        except (UnwrapError, InvalidTag, ValueError) as error:
            raise TamperedError("the envelope") from error
        return key

    def rewrapped(self, kek: KeyEncryptionKey) -> bytes:
        """Return the envelope with its data key under the generation that wraps now, all else as it is.

        Raises as `open` does: what is damaged is never made to look sound.
        """
        key_id, wrapped = kek.wrap(self.open(kek, self.project, self.digest))
        return msgspec.json.encode(msgspec.structs.replace(self, key_id=key_id, wrapped_key=wrapped))


def decode_envelope(content: bytes) -> Envelope:
    """Read an envelope; TamperedError when it is none."""
    try:
        return msgspec.json.decode(content, type=Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TamperedError("the envelope") from error


class Sealing:
    """Hashes and encrypts one blob as its bytes come by; used once, by one thread at a time."""

    def __init__(self) -> None:
        self.object_id = os.urandom(16).hex()
        self.size = 0
        self._key = AESGCM.generate_key(256)
        self._aead = AESGCM(self._key)
        self._hash = hashlib.sha256()
        self._held = bytearray()
        self._index = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def update(self, chunk: bytes) -> bytes:
        """Take plaintext and return the ciphertext of the frames that can not be the last."""
        self._hash.update(chunk)
        self.size += len(chunk)
        self._held += chunk
        whole = max(len(self._held) - 1, 0) // FRAME_BYTES
        with memoryview(self._held) as held:
            frames = [self._frame(held[i * FRAME_BYTES : (i + 1) * FRAME_BYTES], False) for i in range(whole)]
        del self._held[: whole * FRAME_BYTES]
        return b"".join(frames)

    def finish(self) -> bytes:
        """Return the ciphertext of the last frame, which may be empty."""
        return self._frame(self._held, True)

    def envelope(self, kek: KeyEncryptionKey, project: str) -> bytes:
        """Return the envelope, to be stored after the data."""
        bound = _sealed(project, self.digest, self.size, self.object_id)
        seal = self._aead.encrypt(_SEAL_NONCE, b"", bound)
        key_id, wrapped = kek.wrap(self._key)
        envelope = Envelope(project, self.digest, self.size, self.object_id, key_id, wrapped, seal)
        return msgspec.json.encode(envelope)

    def _frame(self, plaintext: bytes | bytearray | memoryview, last: bool) -> bytes:
        frame = self._aead.encrypt(_nonce(self._index, last), plaintext, self.object_id.encode())
        self._index += 1
        return frame


def last_index(size: int) -> int:
    """Return the index of the last frame of a blob of `size` bytes."""
    return max(size - 1, 0) // FRAME_BYTES


def decrypt_frames(key: bytes, envelope: Envelope, first: int, stored: bytes) -> Iterator[bytes]:
    """Yield the plaintext of the frames in `stored`, of which the first has index `first`.

    Raises TamperedError at the first frame that is not the one written at its place.
    """
    aead = AESGCM(key)
    last = last_index(envelope.size)
    with memoryview(stored) as view:
        for index, offset in enumerate(range(0, len(stored), STORED_FRAME_BYTES), first):
            frame = view[offset : offset + STORED_FRAME_BYTES]
            try:
                yield aead.decrypt(_nonce(index, index == last), frame, envelope.object_id.encode())
            except (InvalidTag, ValueError) as error:
                raise TamperedError(f"frame {index}") from error


def _nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([last])


def _sealed(project: str, digest: str, size: int, object_id: str) -> bytes:
    return "\n".join(("sluice blob 1", project, digest, str(size), object_id)).encode()
