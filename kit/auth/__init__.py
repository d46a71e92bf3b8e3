"""Who calls, and may they: keys, service tokens, principals, the decision; it knows no resource."""

from kit.auth.access import Authenticator, authorize
from kit.auth.keys import KEY_PREFIX, digest, new_key
from kit.auth.principal import ALL_PROJECTS, Principal
from kit.auth.snapshot import AccessSnapshot, KeyTable
from kit.auth.tokens import Identity, Verifier

__all__ = [
    "ALL_PROJECTS",
    "KEY_PREFIX",
    "AccessSnapshot",
    "Authenticator",
    "Identity",
    "KeyTable",
    "Principal",
    "Verifier",
    "authorize",
    "digest",
    "new_key",
]
