"""Whole versions that go, by age or with their dataset; what is left of them is a tombstone."""

from __future__ import annotations

from collections.abc import Sequence

from kit.rpc.names import project_of
from kit.store import Unit
from services.dataset import parts, store
from services.dataset.erasure import commands as erasure_commands
from services.dataset.erasure import domain as erasures
from services.dataset.erasure.domain import ERASURES
from services.dataset.governance import lineage
from sluice.dataset import v1 as dataset


async def retire(unit: Unit, of: str, versions: Sequence[str], days: int) -> None:
    """Deletes the rows of versions that are older than their dataset keeps them; its tombstone says so."""
    reason = f"retention: rows of versions older than {days} days are deleted"
    await let_go(unit, of, versions, reason, "services/dataset")


async def let_go(unit: Unit, of: str, versions: Sequence[str], reason: str, creator: str) -> dataset.Erasure:
    """Deletes all rows of versions; what is left of them is the tombstone that is returned."""
    name = erasures.new_name(of)
    erasure = dataset.Erasure(name=name, state=dataset.ERASURE_STATE_SHREDDING, reason=reason, creator=creator)
    for version in sorted([await store.get_version(unit.session, each) for each in versions], key=lambda v: v.version):
        if version.HasField("retire_time"):
            continue
        version.retire_time.FromDatetime(unit.now)
        version.erasures.append(name)
        erasure.rows_removed += version.row_count
        erasure_commands.note(
            erasure,
            dataset.VersionChange(
                dataset_version=version.name, old_digest=version.digest, rows_removed=version.row_count
            ),
        )
        await parts.drop(unit, version.name)
        erasure.quarantined_rows_removed += await _drop_aside(unit, version.upload)
        await store.update_version(unit, version)
        await erasure_commands.forget_figures(unit, project_of(of), version.digest)
    await parts.doom(unit, project_of(of), await lineage.prompts_of(unit.session, versions))
    await ERASURES.insert(unit, erasure)
    unit.emit(
        dataset.ErasureApplied(
            erasure=name,
            changes=erasure.changes,
            version_count=erasure.version_count,
            rows_removed=erasure.rows_removed,
        ),
        name,
    )
    return erasure


async def _drop_aside(unit: Unit, upload: str) -> int:
    """Lets the rows go that an upload put aside; how many those were."""
    if not await parts.of(unit.session, parts.quarantine_of(upload)):
        return 0
    of = await store.UPLOADS.get(unit.session, upload)
    count, of.quarantined_rows = of.quarantined_rows, 0
    await store.UPLOADS.update(unit, of)
    await parts.drop(unit, parts.quarantine_of(upload))
    return count
