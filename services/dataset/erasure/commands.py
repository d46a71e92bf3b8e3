"""What can be done to erasures: one function an intent, inside a unit that the caller opened."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress

from sqlalchemy import delete, update
from sqlmodel import col, select

from kit.rpc.errors import NotFound
from kit.rpc.names import parent_of, project_of
from kit.store import Unit
from services.dataset import parts, store
from services.dataset.erasure import domain as erasures
from services.dataset.erasure.domain import ERASURES, Change, ForgottenRow, SaltRow
from services.dataset.feeds import commands as feeds_commands
from services.dataset.feeds.store import FEEDS
from services.dataset.governance import lineage
from services.dataset.parts import PartRow
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.types import v1 as types

#: Names that one statement asks for.
AT_A_TIME = 500


def _batched(names: Collection[str]) -> list[list[str]]:
    ordered = sorted(names)
    return [ordered[start : start + AT_A_TIME] for start in range(0, len(ordered), AT_A_TIME)]


async def salt(unit: Unit, of: str) -> str:
    """The salt of a dataset, made when it is first needed."""
    known = await erasures.salt_of(unit.session, of)
    if known:
        return known
    made = secrets.token_hex(16)
    unit.session.add(SaltRow(dataset=of, salt=made))
    return made


async def create(
    unit: Unit, request: dataset.CreateErasureRequest, name: str, column: str, predicate: PartRow, creator: str
) -> dataset.Erasure:
    """Orders an erasure whose values lie in the blob ``predicate``. From now on nothing of them comes in any more."""
    erasure = erasures.new_erasure(request, name, column, creator)
    salted = await salt(unit, request.parent)
    erasure.predicate_digests.extend(sorted(erasures.digest_of(salted, column, value) for value in request.values))
    known = await erasures.forgotten_by(unit.session, request.parent, erasure.predicate_digests)
    erasure.forgotten_by.extend(known)
    if not request.dry_run:
        unit.session.add_all(
            ForgottenRow(dataset=request.parent, digest=digest, erasure=name) for digest in erasure.predicate_digests
        )
        for feed in await FEEDS.find(unit.session, parent=request.parent):  # else rows could wait in it for ever
            await feeds_commands.flush_feed(unit, feed.name)
    unit.emit(dataset.ErasureCreated(erasure=name, reason=erasure.reason, dry_run=request.dry_run), name)
    await parts.add(unit, predicate)
    return await ERASURES.insert(unit, erasure)


async def note_progress(unit: Unit, name: str, rows: int, total: int) -> None:
    """Records how far the search has come."""
    erasure = await ERASURES.get(unit.session, name)
    erasure.rows_checked, erasure.rows_total = rows, total
    await ERASURES.update(unit, erasure)


async def count(unit: Unit, name: str, changes: Mapping[str, Change], blank: int = 0) -> None:
    """Ends a dry run with what an erasure would take; ``blank`` rows have nothing in the column."""
    erasure = await ERASURES.get(unit.session, name)
    erasure.rows_without_column = blank
    for version, before in await _affected(unit, parent_of(name), changes):
        found = sum(changes[part.digest].removed for part in before if part.digest in changes)
        note(
            erasure, dataset.VersionChange(dataset_version=version.name, old_digest=version.digest, rows_removed=found)
        )
    await _sum_up(unit, erasure, changes)
    await _end(unit, erasure, dataset.ERASURE_STATE_DONE)


async def apply(
    unit: Unit,
    name: str,
    changes: Mapping[str, Change],
    aside: Mapping[str, Change],
    seen: Collection[str],
    blank: int = 0,
) -> bool:
    """Gives all versions the parts without the rows, in one move; False, and nothing, when there are parts unseen.

    ``blank`` rows have nothing in the column.
    """
    of = parent_of(name)
    present = [*await erasures.stored_parts(unit.session, of), *await erasures.put_aside(unit.session, of)]
    if any(part.digest not in seen for part in present):
        return False
    erasure, shrunk = await ERASURES.get(unit.session, name), list[str]()
    for version, before in await _affected(unit, of, changes):
        change = erasures.shrink(version, before, changes, name)
        if change is not None:
            shrunk.append(version.name)
            note(erasure, change)
            await store.update_version(unit, version)
            await forget_figures(unit, project_of(of), change.old_digest)
    for old, new in changes.items():
        await _replace(unit, f"{of}/versions/", old, new.part)
    for old, new in aside.items():
        await _put_less_aside(unit, of, old, new)
    await _sum_up(unit, erasure, changes)
    erasure.rows_without_column = blank
    erasure.quarantined_rows_removed = sum(change.removed for change in aside.values())
    for owner in (name, erasures.predicate_of(name)):
        await parts.drop(unit, owner)
    await parts.doom(unit, project_of(of), [*changes, *aside, *await lineage.prompts_of(unit.session, shrunk)])
    erasures.enter(erasure, dataset.ERASURE_STATE_SHREDDING)
    await ERASURES.update(unit, erasure)
    unit.emit(
        dataset.ErasureApplied(
            erasure=name,
            changes=erasure.changes,
            version_count=erasure.version_count,
            rows_removed=erasure.rows_removed,
        ),
        name,
    )
    return True


async def finish(unit: Unit, name: str) -> None:
    """Leaves the tombstone."""
    erasure = await ERASURES.get(unit.session, name)
    await _end(unit, erasure, dataset.ERASURE_STATE_DONE)
    unit.emit(dataset.ErasureCompleted(erasure=name), name)


async def fail(unit: Unit, name: str, why: str, damaged: bool = False) -> None:
    """Gives an erasure up; nothing has changed."""
    erasure = await ERASURES.get(unit.session, name)
    reason = errors.ERROR_REASON_CORRUPT_BLOB if damaged else errors.ERROR_REASON_INTERNAL
    erasure.failure.CopyFrom(types.Failure(reason=reason, message=f"nothing was forgotten: {why}"))
    await parts.drop(unit, name)
    await erasures.recall(unit, name)
    await _end(unit, erasure, dataset.ERASURE_STATE_FAILED)
    unit.emit(dataset.ErasureFailed(erasure=name, failure=erasure.failure), name)


async def shred_late_prompts(unit: Unit, use: dataset.ModelUse, prompts: str) -> None:
    """Lets prompts go that a job left which read rows before some of them were forgotten."""
    with suppress(NotFound):
        version = await store.get_version(unit.session, use.dataset_version)
        if prompts and (version.digest != use.dataset_digest or version.HasField("retire_time")):
            await parts.doom(unit, project_of(version.name), [prompts])


async def _affected(
    unit: Unit, of: str, changes: Mapping[str, Change]
) -> list[tuple[dataset.DatasetVersion, list[PartRow]]]:
    """The versions that have one of these parts, oldest first, with all of their parts."""
    owners: set[str] = set()
    for some in _batched(changes):
        query = select(PartRow.owner).where(
            col(PartRow.owner).startswith(f"{of}/versions/", autoescape=True), col(PartRow.digest).in_(some)
        )
        owners.update((await unit.session.exec(query.distinct())).all())
    versions = [await store.get_version(unit.session, owner) for owner in owners]
    ordered = sorted(versions, key=lambda each: each.version)
    return [(version, await parts.of(unit.session, version.name)) for version in ordered]


async def _replace(unit: Unit, owners: str, old: str, new: PartRow) -> None:
    theirs = update(PartRow).where(col(PartRow.owner).startswith(owners, autoescape=True), col(PartRow.digest) == old)
    rows = {"train": new.train, "validation": new.validation, "test": new.test}
    await unit.session.exec(theirs.values(digest=new.digest, size_bytes=new.size_bytes, **rows))


async def _put_less_aside(unit: Unit, of: str, old: str, change: Change) -> None:
    having = select(PartRow.owner).where(
        col(PartRow.owner).startswith(f"{of}/uploads/", autoescape=True), col(PartRow.digest) == old
    )
    for owner in (await unit.session.exec(having.distinct())).all():
        upload = await store.UPLOADS.get(unit.session, owner.removesuffix(parts.QUARANTINE))
        upload.quarantined_rows = max(0, upload.quarantined_rows - change.removed)
        await store.UPLOADS.update(unit, upload)
    if change.part.size_bytes:
        await _replace(unit, f"{of}/uploads/", old, change.part)
        return
    theirs = col(PartRow.owner).startswith(f"{of}/uploads/", autoescape=True)
    await unit.session.exec(delete(PartRow).where(theirs, col(PartRow.digest) == old))


async def forget_figures(unit: Unit, project: str, digest: str) -> None:
    """What was found out about a version, such as its labels, goes with what it was found in (`analysis`)."""
    theirs = col(PartRow.owner).startswith(f"{project}/profiles/", autoescape=True)
    named = col(PartRow.owner).contains(digest.removeprefix("sha256:"), autoescape=True)
    for owner in (await unit.session.exec(select(PartRow.owner).where(theirs, named).distinct())).all():
        await parts.drop(unit, owner)


async def _sum_up(unit: Unit, erasure: dataset.Erasure, changes: Mapping[str, Change]) -> None:
    erasure.rows_removed = sum(change.removed for change in changes.values())
    erasure.rows_checked = erasure.rows_total
    for some in _batched(changes):
        found = await erasures.also_in(unit.session, parent_of(erasure.name), some)
        erasure.also_in.extend(name for name in found if name not in erasure.also_in)


def note(erasure: dataset.Erasure, change: dataset.VersionChange) -> None:
    """Counts a version that changed; only the first are named."""
    erasure.version_count += 1
    if len(erasure.changes) < erasures.CHANGES_KEPT:
        erasure.changes.append(change)


async def _end(unit: Unit, erasure: dataset.Erasure, state: dataset.ErasureState) -> None:
    erasures.enter(erasure, state)
    erasure.end_time.FromDatetime(unit.now)
    await parts.drop(unit, erasures.predicate_of(erasure.name))
    await ERASURES.update(unit, erasure)
