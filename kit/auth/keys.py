"""Secrets of API keys: made once, known afterwards by their hash alone."""

import hashlib
import secrets

KEY_PREFIX = "sk-sluice-"
_SHOWN_CHARACTERS = len(KEY_PREFIX) + 4


def new_key() -> tuple[str, bytes, str]:
    """Return (secret, SHA-256 of the secret, the first characters to recognize it by).

    The secret carries 256 random bits, so a plain hash is enough: nothing can be guessed, no salt is kept.
    """
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    return secret, digest(secret), secret[:_SHOWN_CHARACTERS]


def digest(secret: str) -> bytes:
    """Return the 32 bytes by which a secret is stored and looked up.

    A lookup by hash tells nothing by its timing: who can choose the hash already knows the secret.
    """
    return hashlib.sha256(secret.encode()).digest()
