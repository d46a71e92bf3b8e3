"""Short-lived tokens by which services prove to each other who they are; they carry no role.

A token is a JWT signed with Ed25519 (RFC 8037; the algorithm is named as RFC 9864 asks) for one audience:
the bare name of the service that is called. The gateway passes tokens through unopened, and a token that
one service sees cannot be replayed to another.
"""

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OKPKey

from kit.auth.principal import Principal
from kit.rpc.errors import Unauthenticated
from sluice.errors import v1 as errors

ALGORITHM = "Ed25519"
LIFETIME_S = 60
SKEW_S = 5
_RENEW_BEFORE_S = 20
_SERVICE = re.compile(r"[a-z][a-z0-9-]{0,62}")


def utc_now() -> datetime:
    """Return the present time; the default clock."""
    return datetime.now(UTC)


class Identity:
    """The private half of a service's key pair; it signs tokens and keeps each until near its end."""

    def __init__(self, service: str, key: OKPKey, clock: Callable[[], datetime] = utc_now) -> None:
        self.service = service
        self._key = key
        self._clock = clock
        self._tokens: dict[str, tuple[str, float]] = {}

    @classmethod
    def create(cls, folder: Path, service: str, clock: Callable[[], datetime] = utc_now) -> "Identity":
        """Make a key pair: `<service>.key` (0600) and `<service>.pub`; FileExistsError when there is one."""
        if not _SERVICE.fullmatch(service):
            raise ValueError(f"`{service}` cannot name a service; use small letters, digits and hyphens")
        private = Ed25519PrivateKey.generate()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_path = folder / f"{service}.key"
        secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{service}.pub").write_bytes(public)
        return cls.load(key_path, clock)

    @classmethod
    def load(cls, key_path: Path, clock: Callable[[], datetime] = utc_now) -> "Identity":
        """Read `<service>.key`; PermissionError when others may read it."""
        if key_path.stat().st_mode & 0o077:
            raise PermissionError(f"{key_path} may be read by others; run `chmod 600 {key_path}`")
        return cls(key_path.stem, OKPKey.import_key(key_path.read_bytes()), clock)

    def token(self, audience: str) -> str:
        """Return a token for the service named, one that works for at least 20 more seconds."""
        now = self._clock().timestamp()
        token, expires = self._tokens.get(audience, ("", 0.0))
        if expires - now < _RENEW_BEFORE_S or expires - now > LIFETIME_S:  # the second: the clock was set back
            issued = int(now)
            me = f"services/{self.service}"
            claims = {"iss": me, "sub": me, "aud": audience, "iat": issued, "exp": issued + LIFETIME_S}
            header = {"alg": ALGORITHM, "kid": self.service}
            token = jwt.encode(header, {**claims, "jti": uuid4().hex}, self._key, algorithms=[ALGORITHM])
            self._tokens[audience] = (token, issued + LIFETIME_S)
        return token


class Verifier:
    """The public halves: one `<service>.pub` a service in a folder, read when first needed and on change.

    To take a service's identity away, remove its file.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self._folder = folder
        self._clock = clock
        self._keys: dict[str, tuple[int, OKPKey]] = {}

    def verify(self, token: str, audience: str) -> Principal:
        """Return the service that signed the token for this audience.

        Raises Unauthenticated (INVALID_CREDENTIALS) on any other algorithm, signer, audience or time.
        """
        try:
            claims = jwt.decode(token, self._key_of, algorithms=[ALGORITHM])
            service = str(claims.header["kid"])
            self._check(claims.claims, f"services/{service}", audience)
        except (JoseError, ValueError, KeyError, TypeError, OSError) as error:
            raise Unauthenticated(
                f"the service token was refused ({_cause(error)}); "
                "check the clocks and that the caller's public key is here",
                reason=errors.ERROR_REASON_INVALID_CREDENTIALS,
            ) from error
        return Principal(f"services/{service}", frozenset(), service)

    def _key_of(self, token: GuestProtocol) -> OKPKey:
        service = token.headers().get("kid", "")
        if not isinstance(service, str) or not _SERVICE.fullmatch(service):
            raise ValueError("no signer is named")
        path = self._folder / f"{service}.pub"
        changed = path.stat().st_mtime_ns
        known = self._keys.get(service)
        if known is None or known[0] != changed:
            known = self._keys[service] = (changed, OKPKey.import_key(path.read_bytes()))
        return known[1]

    def _check(self, claims: dict[str, object], issuer: str, audience: str) -> None:
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock().timestamp()),
            leeway=SKEW_S,
            iss={"essential": True, "value": issuer},
            sub={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            iat={"essential": True},
            exp={"essential": True},
            jti={"essential": True},
        )
        registry.validate(claims)
        issued, expires = claims["iat"], claims["exp"]
        if not isinstance(issued, int) or not isinstance(expires, int) or expires - issued > LIFETIME_S:
            raise ValueError("it lives too long")


def _cause(error: Exception) -> str:
    match error:
        case JoseError():
            return error.error.replace("_", " ") or "malformed"
        case OSError():
            return "unknown signer"
        case _:
            return str(error) if type(error) is ValueError else "malformed"
