"""What an erasure is, what it changes and what must not come back; of rows only columns and counts are known here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete
from sqlmodel import Field, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import parent_of, uuid7
from kit.store import ResourceRow, Resources, Unit
from services.dataset import parts, store
from services.dataset.parts import PartRow
from sluice import lifecycle
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.rows.recall import Forgotten

#: The columns that say whose a row is.
COLUMNS = ("id", "group", "tags")
CHANGES_KEPT = 500


class ErasureRow(ResourceRow, table=True):
    """An erasure."""

    __tablename__ = "dataset_erasure"
    dry_run: bool = Field(index=True)


class SaltRow(SQLModel, table=True):
    """What the digests of a dataset's forgotten values are salted with."""

    __tablename__ = "dataset_salt"
    dataset: str = Field(primary_key=True)
    salt: str


class ForgottenRow(SQLModel, table=True):
    """A salted value that must not come back into a dataset."""

    __tablename__ = "dataset_forgotten"
    dataset: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    erasure: str = Field(primary_key=True)


class Change(NamedTuple):
    """What becomes of one stored part: how many rows go, and the part that takes its place (in a dry run itself)."""

    removed: int
    part: PartRow


ERASURES = Resources(
    ErasureRow, dataset.Erasure, lambda each: {"dry_run": each.dry_run}, enums={"state": dataset.ErasureState}
)


def predicate_of(erasure: str) -> str:
    """The owner of the blob with the values that an erasure looks for."""
    return f"{erasure}/predicate"


def digest_of(salt: str, column: str, value: str) -> str:
    """What is kept of a forgotten value; `sluice.rows.erasing.digests` gives the same."""
    salted = f"{salt}\n{column}\n{value}"
    return f"sha256:{hashlib.sha256(salted.encode()).hexdigest()}"


def new_erasure(request: dataset.CreateErasureRequest, name: str, column: str, creator: str) -> dataset.Erasure:
    """The erasure that was ordered."""
    return dataset.Erasure(
        name=name,
        state=dataset.ERASURE_STATE_RUNNING,
        reason=request.reason,
        creator=creator,
        column=column,
        dry_run=request.dry_run,
    )


def new_name(parent: str) -> str:
    """A name for an erasure of this dataset."""
    return f"{parent}/erasures/{uuid7()}"


def column_of(wanted: str, mappings: Iterable[Mapping[str, str]]) -> str:
    """The column that people mean by a name of their files. Raises Invalid (UNKNOWN_COLUMN)."""
    if wanted in COLUMNS:
        return wanted
    meant = {mapping[wanted] for mapping in mappings if mapping.get(wanted) in COLUMNS}
    if len(meant) == 1:
        return meant.pop()
    raise Invalid(
        f"no upload of this dataset says by `--map {wanted}=…` what `{wanted}` is; rows are forgotten by `id`, `group` "
        "(such as the patient) or `tags`",
        reason=errors.ERROR_REASON_UNKNOWN_COLUMN,
        violations=[("column", "is not known")],
    )


def names_of(column: str, mappings: Iterable[Mapping[str, str]]) -> set[str]:
    """What files have called a column."""
    return {name for mapping in mappings for name, meaning in mapping.items() if meaning == column}


def check_reason(reason: str, values: Iterable[str]) -> None:
    """Raises Invalid when a reason says whose rows they are: it is kept for good."""
    for value in values:
        word = re.escape(value) if not value.isascii() else rf"(?<!\w){re.escape(value)}(?!\w)"
        if re.search(word, reason):
            raise Invalid(
                "the reason is kept for good and holds one of the values that are to be forgotten; say it without",
                violations=[("reason", "says whose rows they are")],
            )


def check_digest(version: dataset.DatasetVersion, wanted: str) -> None:
    """Raises StateConflict (ROWS_FORGOTTEN) when the version is not at the digest that a reader wants; empty is any."""
    if wanted and wanted != version.digest:
        last = f" by `{version.erasures[-1]}`" if version.erasures else ""
        raise StateConflict(
            f"rows of `{version.name}` were forgotten{last}: its digest is {version.digest} now; read it at that one",
            reason=errors.ERROR_REASON_ROWS_FORGOTTEN,
            resource=("DatasetVersion", version.name),
        )


def check_same(before: dataset.DatasetVersion, now: dataset.DatasetVersion) -> None:
    """Raises StateConflict (ROWS_FORGOTTEN) when rows of a version were forgotten while it was read."""
    if now.digest != before.digest or now.HasField("retire_time"):
        raise StateConflict(
            f"rows of `{now.name}` were forgotten while it was read; throw away what was read, then read it again",
            reason=errors.ERROR_REASON_ROWS_FORGOTTEN,
            resource=("DatasetVersion", now.name),
        )


def enter(erasure: dataset.Erasure, state: dataset.ErasureState) -> None:
    """Moves an erasure on. Raises StateConflict when its life cycle does not allow it."""
    if not lifecycle.can(lifecycle.ERASURE, erasure.state, state):
        words = [dataset.ErasureState.Name(each).removeprefix("ERASURE_STATE_") for each in (erasure.state, state)]
        raise StateConflict(f"erasure `{erasure.name}` is {words[0]} and cannot become {words[1]}")
    erasure.state = state


def shrink(
    version: dataset.DatasetVersion, before: Sequence[PartRow], changes: Mapping[str, Change], erasure: str
) -> dataset.VersionChange | None:
    """Gives a version the parts that take the place of its own; None when it had none of the rows."""
    lost = [changes[part.digest].removed if part.digest in changes else 0 for part in before]
    if not any(part.digest in changes for part in before):
        return None
    after = [changes[part.digest].part if part.digest in changes else part for part in before]
    change = dataset.VersionChange(
        dataset_version=version.name, old_digest=version.digest, digest=parts.digest_of(after), rows_removed=sum(lost)
    )
    version.rows_added -= sum(lost[_shared(before, version.row_count - version.rows_added) :])
    version.digest = change.digest
    version.row_count = sum(part.rows_of() for part in after)
    for split in list(version.split_rows):
        version.split_rows[split] = sum(part.rows_of(split) for part in after)
    version.size_bytes = sum(part.size_bytes for part in after)
    version.erasures.append(erasure)
    return change


def _shared(before: Sequence[PartRow], rows: int) -> int:
    """How many parts the first ``rows`` rows, those of the base version, lie in."""
    count = 0
    while rows > 0 and count < len(before):
        rows -= before[count].rows_of()
        count += 1
    return count


async def page(session: AsyncSession, parent: str, size: int, token: str) -> tuple[list[dataset.Erasure], str]:
    """One page of the erasures of a dataset, newest first and without dry runs, and the token of the next."""
    real = [col(ErasureRow.dry_run).is_(False)]
    return await ERASURES.page(session, parent=parent, page_size=size, page_token=token, newest_first=True, where=real)


async def waiting(session: AsyncSession) -> list[dataset.Erasure]:
    """The erasures that are not over, oldest first."""
    return await ERASURES.find(session, state=[dataset.ERASURE_STATE_RUNNING, dataset.ERASURE_STATE_SHREDDING])


async def salt_of(session: AsyncSession, of: str) -> str:
    """The salt of a dataset; empty when nothing was ever forgotten in it."""
    row = await session.get(SaltRow, of)
    return row.salt if row else ""


async def forgotten(session: AsyncSession, of: str) -> Forgotten:
    """What must not come back into a dataset."""
    query = select(ForgottenRow.digest).where(col(ForgottenRow.dataset) == of).distinct()
    digests = list((await session.exec(query)).all())
    if not digests:
        return Forgotten()
    mappings = [each.columns for each in await store.UPLOADS.find(session, parent=of)]
    names = {name: column for column in COLUMNS for name in names_of(column, mappings)}
    return Forgotten(await salt_of(session, of), digests, names)


async def forgotten_by(session: AsyncSession, of: str, digests: Sequence[str]) -> list[str]:
    """The erasures that forgot one of these values before."""
    query = select(ForgottenRow.erasure).where(col(ForgottenRow.dataset) == of, col(ForgottenRow.digest).in_(digests))
    return sorted(set((await session.exec(query)).all()))


async def recall(unit: Unit, erasure: str) -> None:
    """Lets come back what an erasure that failed was to keep out."""
    await unit.session.exec(delete(ForgottenRow).where(col(ForgottenRow.erasure) == erasure))


async def stored_parts(session: AsyncSession, of: str) -> list[PartRow]:
    """The parts of all versions of a dataset, each blob once and as nobody's."""
    return await _distinct(session, col(PartRow.owner).startswith(f"{of}/versions/", autoescape=True))


async def put_aside(session: AsyncSession, of: str) -> list[PartRow]:
    """The files of rows that uploads to a dataset put aside, each blob once and as nobody's."""
    theirs = col(PartRow.owner).startswith(f"{of}/uploads/", autoescape=True)
    return await _distinct(session, theirs & col(PartRow.owner).endswith(parts.QUARANTINE))


async def _distinct(session: AsyncSession, having: Any) -> list[PartRow]:
    blob: Any = select(  # type: ignore[call-overload]
        PartRow.project, PartRow.digest, PartRow.size_bytes, PartRow.train, PartRow.validation, PartRow.test
    )
    rows = (await session.exec(blob.where(having).distinct())).all()
    return [PartRow(owner="", place=0, **row._mapping) for row in rows]


async def also_in(session: AsyncSession, of: str, digests: Sequence[str]) -> list[str]:
    """Other datasets in which one of these blobs is stored as well."""
    owners = select(PartRow.owner).where(col(PartRow.project) == parent_of(of), col(PartRow.digest).in_(digests))
    names = {"/".join(owner.split("/")[:4]) for owner in (await session.exec(owners.distinct())).all()}
    return sorted(names - {of})
