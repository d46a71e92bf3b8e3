"""What the evaluator does when other services say that something happened."""

from __future__ import annotations

from kit.bus import Handlers
from kit.store import Unit
from services.evaluator import commands
from sluice.dataset import v1 as dataset
from sluice.events import v1 as events
from sluice.registry import v1 as registry


async def model_version_created(unit: Unit, event: events.Event, data: registry.ModelVersionCreated) -> None:
    """A new version gets its evaluation, but for one that came without rows to ask."""
    if data.model_version.lineage.dataset_version:
        await commands.create_evaluation(unit, data.model_version)


async def erasure_applied(unit: Unit, event: events.Event, data: dataset.ErasureApplied) -> None:
    """What was kept of forgotten rows goes."""
    await commands.forget_rows(unit, data)


HANDLERS: Handlers = {
    registry.ModelVersionCreated: model_version_created,
    dataset.ErasureApplied: erasure_applied,
}
