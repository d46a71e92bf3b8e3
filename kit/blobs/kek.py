"""What wraps the data key of every blob, and how its generations change; it never sees a blob, nor gives a key away.

A file of this machine is one (`keyfile.py`). A vault can be another: Vault's transit engine wraps and unwraps by the
name and version of a key, makes new versions and drops old ones.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class UnwrapError(ValueError):
    """The wrapped key was changed, or wrapped by another key."""


class UnknownKeyError(ValueError):
    """No generation of that id is held; what it wrapped may be in order."""


class KeyEncryptionKey(Protocol):
    """Wraps and unwraps data keys, each under a generation of its own key. Both may block: they are called in threads.

    The generation that wraps may change at any time, by another process too.
    """

    @property
    def key_id(self) -> str:
        """The generation that wraps now: a name that tells nothing about the key."""

    def wrap(self, data_key: bytes) -> tuple[str, bytes]:
        """The generation that wrapped, and the data key as only `unwrap` under that generation gives it back."""

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """The data key. UnwrapError when the bytes were changed, UnknownKeyError when that generation is not held."""


@dataclass(frozen=True)
class Generation:
    """One generation of a key: since when it wraps, None while it waits for that; `until` is None for the one that
    wraps now."""

    key_id: str
    since: datetime | None = None
    until: datetime | None = None
    wraps: bool = False


class KeyGenerations(KeyEncryptionKey, Protocol):
    """A key-encryption key whose generations can be changed."""

    def generations(self) -> list[Generation]:
        """All that are held, the oldest first."""

    def prepare(self) -> str:
        """Makes a generation that unwraps and does not wrap yet, if none is waiting; returns the one that waits."""

    def rotate(self) -> str:
        """Lets the generation that waits wrap from now on, or a new one; returns it."""

    def retire(self, key_id: str) -> None:
        """Destroys a generation. Raises ValueError for the one that wraps, UnknownKeyError when it is not held."""
