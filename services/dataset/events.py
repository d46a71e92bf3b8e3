"""What the dataset service does when others say that a model version was made or judged, and what a job reads."""

from __future__ import annotations

from datetime import UTC

from kit.bus import Handlers
from kit.store import Unit
from services.dataset.erasure import commands as forgetting
from services.dataset.governance import lineage
from sluice.dataset import v1 as dataset
from sluice.evaluator import v1 as evaluator
from sluice.events import v1 as events
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer


async def training_job_created(unit: Unit, event: events.Event, data: trainer.TrainingJobCreated) -> None:
    """What a job is going to read is not deleted by age."""
    if data.dataset_version:
        await lineage.begin_job(unit, data.training_job, data.dataset_version)


async def training_job_succeeded(unit: Unit, event: events.Event, data: trainer.TrainingJobSucceeded) -> None:
    """The job has read all."""
    await lineage.end_job(unit, data.training_job)


async def training_job_failed(unit: Unit, event: events.Event, data: trainer.TrainingJobFailed) -> None:
    """The job reads no more, unless somebody has it tried again."""
    await lineage.end_job(unit, data.training_job)


async def model_version_created(unit: Unit, event: events.Event, data: registry.ModelVersionCreated) -> None:
    """A model version saw the rows it was trained on, and whatever its base and those that it learned from saw."""
    version, time = data.model_version, event.time.ToDatetime(UTC)
    origin = version.lineage
    base = version.base_model_version or origin.source_model_version
    await lineage.note_model(unit, version.name, base, origin.read_model_versions.values(), time)
    if origin.dataset_version:
        use = dataset.ModelUse(
            model_version=version.name,
            dataset_version=origin.dataset_version,
            dataset_digest=origin.dataset_digest,
            seen=dataset.SEEN_TRAINED,
            source=origin.training_job,
        )
        await lineage.note_use(unit, use, time, version.parity.digest)
        await forgetting.shred_late_prompts(unit, use, version.parity.digest)


async def evaluation_completed(unit: Unit, event: events.Event, data: evaluator.EvaluationCompleted) -> None:
    """A model version was judged by rows."""
    if data.dataset_version:
        use = dataset.ModelUse(
            model_version=data.model_version,
            dataset_version=data.dataset_version,
            seen=dataset.SEEN_EVALUATED,
            source=data.evaluation,
        )
        await lineage.note_use(unit, use, event.time.ToDatetime(UTC))


HANDLERS: Handlers = {
    trainer.TrainingJobCreated: training_job_created,
    trainer.TrainingJobSucceeded: training_job_succeeded,
    trainer.TrainingJobFailed: training_job_failed,
    registry.ModelVersionCreated: model_version_created,
    evaluator.EvaluationCompleted: evaluation_completed,
}
