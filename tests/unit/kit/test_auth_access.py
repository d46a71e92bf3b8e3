"""Who calls, and may they: the decision table of kit/auth."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kit.auth import (
    AccessSnapshot,
    Authenticator,
    Identity,
    KeyTable,
    Principal,
    Verifier,
    authorize,
    digest,
    new_key,
)
from kit.rpc.errors import Denied, Unauthenticated, Unavailable
from kit.rpc.interceptors.auth import access_of
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.types import v1 as types

NOW = datetime(2026, 11, 1, tzinfo=UTC)
READER = types.Access(reader=True)
APPROVERS = types.Access(roles=[types.ROLE_APPROVER, types.ROLE_OPERATIONS])
SERVICES = types.Access(services=["trainer"])
INFERENCE = types.Access(reader=True, roles=[types.ROLE_INFERENCE])


def holder(project: str, *roles: "types.Role.ValueType") -> Principal:
    return Principal("projects/a/apiKeys/k", frozenset((project, int(role)) for role in roles))


TRAINER = Principal("services/trainer", frozenset(), "trainer")


@pytest.mark.parametrize(
    ("principal", "access", "project"),
    [
        (holder("projects/a", types.ROLE_ADMIN), APPROVERS, "projects/a"),
        (holder("projects/-", types.ROLE_ADMIN), types.Access(), ""),
        (holder("projects/a", types.ROLE_APPROVER), APPROVERS, "projects/a"),
        (holder("projects/-", types.ROLE_OPERATIONS), APPROVERS, "projects/a"),
        (holder("projects/a", types.ROLE_AUDITOR), READER, "projects/a"),
        (holder("projects/a", types.ROLE_AUDITOR), READER, ""),
        (holder("projects/-", types.ROLE_AUDITOR), READER, "projects/-"),
        (holder("projects/a", types.ROLE_INFERENCE), INFERENCE, "projects/a"),
        (TRAINER, SERVICES, "projects/a"),
        (TRAINER, SERVICES, ""),
    ],
)
def test_may(principal: Principal, access: types.Access, project: str) -> None:
    authorize(principal, access, project)


@pytest.mark.parametrize(
    ("principal", "access", "project", "needs"),
    [
        (holder("projects/a", types.ROLE_ADMIN), APPROVERS, "projects/b", "approver or operations"),
        (holder("projects/a", types.ROLE_ADMIN), types.Access(), "", "admin"),
        (holder("projects/a", types.ROLE_ADMIN), READER, "projects/-", "any role but inference"),
        (holder("projects/a", types.ROLE_ALGORITHM), APPROVERS, "projects/a", "approver or operations"),
        (holder("projects/a", types.ROLE_INFERENCE), READER, "projects/a", "any role but inference"),
        (holder("projects/a", types.ROLE_INFERENCE), READER, "", "any role but inference"),
        (holder("projects/a", types.ROLE_ENGINEERING), SERVICES, "projects/a", "`services/trainer` alone"),
        (holder("projects/a", types.ROLE_ADMIN), SERVICES, "projects/a", "`services/trainer` alone"),
        (holder("projects/-", types.ROLE_ADMIN), SERVICES, "", "`services/trainer` alone"),
        (TRAINER, READER, "projects/a", "any role but inference"),
        (Principal("services/dataset", frozenset(), "dataset"), SERVICES, "projects/a", "`services/trainer` alone"),
        (Principal("projects/a/apiKeys/k", frozenset()), READER, "projects/a", "any role but inference"),
    ],
)
def test_may_not(principal: Principal, access: types.Access, project: str, needs: str) -> None:
    with pytest.raises(Denied) as denied:
        authorize(principal, access, project)
    assert denied.value.reason == errors.ERROR_REASON_ROLE_REQUIRED
    assert needs in denied.value.message
    assert principal.name in denied.value.message


def test_everybody_with_a_key_may_ask_who_they_are() -> None:
    access = access_of("/sluice.registry.v1.ApiKeyService/WhoAmI")
    for role in set(types.Role.values()) - {types.ROLE_UNSPECIFIED}:
        authorize(holder("projects/a", role), access, "")
    authorize(Principal("projects/a/apiKeys/k", frozenset()), access, "")
    with pytest.raises(Denied):  # another rpc that names no project
        authorize(holder("projects/a", types.ROLE_INFERENCE), READER, "")


def table(secret: str, expires: datetime | None = None) -> KeyTable:
    record = registry.KeyRecord(secret_sha256=digest(secret), principal="projects/a/apiKeys/k")
    record.role_bindings.add(project="projects/a", role=types.ROLE_ALGORITHM)
    if expires is not None:
        record.expire_time.FromDatetime(expires)
    return KeyTable.from_response(registry.WatchAccessResponse(revision=1, keys=[record]))


def authenticator(folder: Path, *tables: KeyTable, enabled: bool = True) -> Authenticator:
    snapshot = AccessSnapshot()
    for each in tables:
        snapshot.swap(each)
    clock: Callable[[], datetime] = lambda: NOW  # noqa: E731
    return Authenticator(snapshot, Verifier(folder, clock), service="dataset", enabled=enabled, clock=clock)


def test_a_key_gives_its_principal(tmp_path: Path) -> None:
    secret, sha256, prefix = new_key()
    assert secret.startswith(prefix) and len(secret) == len("sk-sluice-") + 43 and sha256 == digest(secret)
    principal = authenticator(tmp_path, table(secret))((("authorization", f"Bearer {secret}"),))
    assert principal == holder("projects/a", types.ROLE_ALGORITHM)


def test_a_revoked_or_expired_key_is_refused(tmp_path: Path) -> None:
    secret, _, _ = new_key()
    metadata = (("authorization", f"Bearer {secret}"),)
    authenticator(tmp_path, table(secret, NOW + timedelta(seconds=1)))(metadata)
    for tables in ([table(secret), KeyTable()], [table(secret, NOW)]):
        with pytest.raises(Unauthenticated) as refused:
            authenticator(tmp_path, *tables)(metadata)
        assert refused.value.reason == errors.ERROR_REASON_INVALID_CREDENTIALS
        assert secret not in refused.value.message


def test_what_is_no_key_at_all_is_an_unknown_key(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="the key is unknown, expired or revoked; set SLUICE_API_KEY"):
        authenticator(tmp_path, KeyTable())((("authorization", "Bearer hello"),))


def test_no_key_names_the_fix(tmp_path: Path) -> None:
    for metadata in (None, (), (("x", "y"),)):
        with pytest.raises(Unauthenticated, match="set SLUICE_API_KEY") as refused:
            authenticator(tmp_path, KeyTable())(metadata)
        assert refused.value.reason == errors.ERROR_REASON_MISSING_CREDENTIALS


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Basic abc", "sk-sluice-abc", "Bearer a.b.c", "Bearer é"])
def test_a_malformed_header_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        authenticator(tmp_path, KeyTable())((("authorization", value),))
    assert refused.value.reason == errors.ERROR_REASON_INVALID_CREDENTIALS


def test_keys_that_have_not_arrived_are_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        authenticator(tmp_path)((("authorization", "Bearer sk-sluice-x"),))


def test_a_service_token_needs_no_keys(tmp_path: Path) -> None:
    token = Identity.create(tmp_path, "trainer", lambda: NOW).token("dataset")
    assert authenticator(tmp_path)((("authorization", f"Bearer {token}"),)) == TRAINER


def test_without_authentication_everyone_is_anonymous_and_services_stay_themselves(tmp_path: Path) -> None:
    open_door = authenticator(tmp_path, enabled=False)
    anonymous = open_door(None)
    assert anonymous.name == "anonymous" and anonymous.has_role("projects/x", [types.ROLE_ADMIN])
    token = Identity.create(tmp_path, "trainer", lambda: NOW).token("dataset")
    assert open_door((("authorization", f"Bearer {token}"),)) == TRAINER
