"""Who may see, read, change and share one dataset; how callers prove who they are is not known here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, or_
from sqlmodel import Field, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.auth import Principal
from kit.rpc.call import current_call
from kit.rpc.errors import Denied
from kit.rpc.names import id_of, parent_of, project_of
from kit.store import ResourceRow, Resources, Unit
from services.dataset import store
from services.dataset.store import DatasetRow
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.types import v1 as types

#: Fields of a dataset that its owner and administrators alone change.
OWNERS_FIELDS = frozenset({"owner", "access", "retention_days", "classification", "deidentify"})
#: Roles that may read rows. Whoever counts the rows of a patient learns whether that patient is among them.
READERS = frozenset({types.ROLE_ALGORITHM, types.ROLE_AUDITOR})

READ = dataset.RIGHT_READ


class GrantRow(ResourceRow, table=True):
    """A right on a dataset."""

    __tablename__ = "dataset_grant"
    grantee: str = Field(index=True)
    right: int


GRANTS = Resources(GrantRow, dataset.Grant, lambda each: {"grantee": each.grantee, "right": each.right})


def holders(principal: Principal, project: str) -> set[str]:
    """The names under which a principal can have a right: its own, and those of its roles."""
    words = (types.Role.Name(types.Role.ValueType(role)) for role in principal.roles(project))
    return {principal.name, *(f"roles/{word.removeprefix('ROLE_').lower()}" for word in words)}


def is_above(principal: Principal, project: str) -> bool:
    """Whether no access of a dataset is a bar: a service of the suite, or an administrator of the project."""
    return bool(principal.service) or types.ROLE_ADMIN in principal.roles(project)


def may(principal: Principal, of: dataset.Dataset, rights: Mapping[str, int], wanted: int) -> bool:
    """Whether a principal whose role allows it has the right on this dataset too; ``rights`` are those by grantee."""
    project = project_of(of.name)
    if of.access != dataset.DATASET_ACCESS_GRANTED or is_above(principal, project) or owns(principal, of):
        return True
    return any(rights.get(holder, 0) >= wanted for holder in holders(principal, project))


def may_share(principal: Principal, of: dataset.Dataset) -> bool:
    """Whether a principal may restrict a dataset, give rights on it and forget its rows."""
    return is_above(principal, project_of(of.name)) or owns(principal, of)


def owns(principal: Principal, of: dataset.Dataset) -> bool:
    """Whether it is the owner; of nobody's dataset there is none."""
    return bool(of.owner) and of.owner == principal.name


def check_share(of: dataset.Dataset) -> None:
    """Raises Denied (ROLE_REQUIRED) unless the caller is the owner or an administrator."""
    principal = current_call().principal
    if not may_share(principal, of):
        raise Denied(
            f"`{principal.name}` does not own `{of.name}`; ask its owner or an administrator of the project",
            reason=errors.ERROR_REASON_ROLE_REQUIRED,
        )


def check_count(of: dataset.Dataset) -> None:
    """Raises Denied (ROLE_REQUIRED) unless the caller may read the rows that they want to count."""
    principal = current_call().principal
    if not may_share(principal, of) and not principal.has_role(project_of(of.name), READERS):
        raise Denied(
            f"`{principal.name}` may not read rows of `{of.name}`, and so not count them; ask its owner",
            reason=errors.ERROR_REASON_ROLE_REQUIRED,
        )


def check_change(before: dataset.Dataset, after: dataset.Dataset) -> None:
    """Raises Denied when the caller may not change what is different; see OWNERS_FIELDS."""
    if any(getattr(before, field) != getattr(after, field) for field in OWNERS_FIELDS):
        check_share(before)


async def rights_on(session: AsyncSession, of: str) -> dict[str, int]:
    """The rights on a dataset by grantee."""
    query = select(GrantRow.grantee, GrantRow.right).where(col(GrantRow.parent) == of)
    return dict((await session.exec(query)).all())


def visible(principal: Principal, parent: str) -> list[ColumnElement[bool]]:
    """The condition that datasets of a project meet which the principal may know of; none where it may know of all."""
    if is_above(principal, parent):
        return []
    granted = select(GrantRow.name).where(
        col(GrantRow.parent) == col(DatasetRow.name), col(GrantRow.grantee).in_(sorted(holders(principal, parent)))
    )
    mine = col(DatasetRow.owner) == principal.name
    return [or_(col(DatasetRow.access) != dataset.DATASET_ACCESS_GRANTED, mine, granted.exists())]


async def restricted(session: AsyncSession, project: str) -> Sequence[dataset.Dataset]:
    """The datasets of a project, `projects/-` for all, that only some may know of."""
    where: dict[str, object] = {} if project == "projects/-" else {"parent": project}
    return await store.DATASETS.find(session, access=int(dataset.DATASET_ACCESS_GRANTED), **where)


async def hidden(session: AsyncSession, principal: Principal, project: str) -> set[str]:
    """The datasets of a project that a principal may not know of."""
    if is_above(principal, project):
        return set()
    closed = await restricted(session, project)
    return {each.name for each in closed if not may(principal, each, await rights_on(session, each.name), READ)}


def name_of(parent: str, grantee: str) -> str:
    """The name of the one grant that somebody can have on a dataset."""
    if grantee.startswith("roles/"):
        return f"{parent}/grants/role.{id_of(grantee)}"
    return f"{parent}/grants/key.{id_of(parent_of(grantee))}.{id_of(grantee)}"


async def give(unit: Unit, parent: str, wanted: dataset.Grant, creator: str) -> dataset.Grant:
    """Gives a right, in place of the one that the grantee has."""
    check_share(await store.DATASETS.get(unit.session, parent))
    grant = dataset.Grant(
        name=name_of(parent, wanted.grantee), grantee=wanted.grantee, right=wanted.right, creator=creator
    )
    there = await GRANTS.find(unit.session, name=grant.name)
    given = await (GRANTS.update(unit, grant) if there else GRANTS.insert(unit, grant))
    unit.emit(dataset.GrantCreated(grant=given), given.name)
    return given


async def take(unit: Unit, name: str, etag: str) -> None:
    """Takes a right away."""
    check_share(await store.DATASETS.get(unit.session, parent_of(name)))
    await GRANTS.delete(unit, name, etag)
    unit.emit(dataset.GrantDeleted(grant=name), name)
