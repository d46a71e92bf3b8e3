"""Service tokens: what is accepted, and everything that must not be."""

import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from kit.auth import Identity, Verifier
from kit.rpc.errors import Unauthenticated


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def part(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_token_tells_the_service(tmp_path: Path, clock: Clock) -> None:
    identity = Identity.create(tmp_path, "trainer", clock)
    assert (tmp_path / "trainer.key").stat().st_mode & 0o777 == 0o600
    principal = Verifier(tmp_path, clock).verify(identity.token("dataset"), "dataset")
    assert (principal.name, principal.service, principal.bindings) == (
        "services/trainer",
        "trainer",
        frozenset(),
    )


def test_a_token_is_kept_until_near_its_end(tmp_path: Path, clock: Clock) -> None:
    identity = Identity.create(tmp_path, "trainer", clock)
    first = identity.token("dataset")
    clock.advance(40)
    assert identity.token("dataset") == first != identity.token("registry")
    clock.advance(1)
    assert identity.token("dataset") != first


@pytest.mark.parametrize(("seconds", "accepted"), [(-6, False), (-4, True), (0, True), (64, True), (66, False)])
def test_time_has_five_seconds_of_play(tmp_path: Path, clock: Clock, seconds: int, accepted: bool) -> None:
    token = Identity.create(tmp_path, "trainer", clock).token("dataset")
    clock.advance(seconds)
    verifier = Verifier(tmp_path, clock)
    if accepted:
        verifier.verify(token, "dataset")
    else:
        with pytest.raises(Unauthenticated):
            verifier.verify(token, "dataset")


def test_forgeries_are_refused(tmp_path: Path, clock: Clock) -> None:
    Identity.create(tmp_path, "trainer", clock)
    other = Identity.create(tmp_path / "elsewhere", "trainer", clock)
    issued = int(clock().timestamp())
    me = {"iss": "services/trainer", "sub": "services/trainer", "aud": "dataset"}
    claims = {**me, "iat": issued, "exp": issued + 60, "jti": "1"}
    header = {"alg": "Ed25519", "kid": "trainer"}
    key = OKPKey.import_key((tmp_path / "trainer.key").read_bytes())
    public = (tmp_path / "trainer.pub").read_text()

    def signed(change: dict[str, object], **headers: str) -> str:
        return jwt.encode({**header, **headers}, {**claims, **change}, key, algorithms=["Ed25519"])

    symmetric = OctKey.import_key(public.replace("-----", ""))
    forgeries = {
        "signed by another key": other.token("dataset"),
        "no algorithm": f"{part({'alg': 'none', 'kid': 'trainer'})}.{part(claims)}.",
        "the public key as a secret": jwt.encode({**header, "alg": "HS256"}, claims, symmetric, algorithms=["HS256"]),
        "another audience": signed({"aud": "registry"}),
        "another issuer": signed({"iss": "services/gateway"}),
        "another subject": signed({"sub": "services/gateway"}),
        "too long a life": signed({"exp": issued + 3600}),
        "no end": signed({"exp": None}),
        "unknown signer": signed({}, kid="nobody"),
        "a path as signer": signed({}, kid="../elsewhere/trainer"),
        "not a token": "abc",
        "empty": "",
    }
    verifier = Verifier(tmp_path, clock)
    verifier.verify(signed({}), "dataset")
    for what, token in forgeries.items():
        with pytest.raises(Unauthenticated):
            verifier.verify(token, "dataset")
            pytest.fail(what)


def test_a_replaced_public_key_counts_at_once(tmp_path: Path, clock: Clock) -> None:
    token = Identity.create(tmp_path, "trainer", clock).token("dataset")
    verifier = Verifier(tmp_path, clock)
    verifier.verify(token, "dataset")
    (tmp_path / "trainer.key").unlink()
    renewed = Identity.create(tmp_path, "trainer", clock)
    with pytest.raises(Unauthenticated):
        verifier.verify(token, "dataset")
    verifier.verify(renewed.token("dataset"), "dataset")
    (tmp_path / "trainer.pub").unlink()
    with pytest.raises(Unauthenticated):
        verifier.verify(renewed.token("dataset"), "dataset")


def test_a_key_others_may_read_is_refused(tmp_path: Path) -> None:
    Identity.create(tmp_path, "trainer")
    (tmp_path / "trainer.key").chmod(0o640)
    with pytest.raises(PermissionError, match="chmod 600"):
        Identity.load(tmp_path / "trainer.key")
