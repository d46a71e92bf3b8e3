"""What the registry does when other services say that something happened."""

from __future__ import annotations

from kit.bus import Handlers
from kit.store import Unit
from services.registry import commands
from services.registry.catalog import Catalog
from sluice.evaluator import v1 as evaluator
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway
from sluice.trainer import v1 as trainer


def handlers(catalog: Catalog) -> Handlers:
    """One handler for each event; each records work in its unit and returns."""

    async def training_job_succeeded(unit: Unit, event: events.Event, data: trainer.TrainingJobSucceeded) -> None:
        await commands.register_training(unit, catalog, data)

    async def evaluation_completed(unit: Unit, event: events.Event, data: evaluator.EvaluationCompleted) -> None:
        await commands.judge(unit, catalog, data)

    async def evaluation_failed(unit: Unit, event: events.Event, data: evaluator.EvaluationFailed) -> None:
        await commands.leave_undecided(unit, catalog, data)

    async def rollout_created(unit: Unit, event: events.Event, data: gateway.RolloutCreated) -> None:
        await commands.note_rollout(unit, data.rollout, data.model_version)

    async def endpoint_rerouted(unit: Unit, event: events.Event, data: gateway.EndpointRerouted) -> None:
        serving = [arm.model_version for arm in data.route if arm.weight_percent == 100]
        await commands.follow_route(unit, data.endpoint, serving[0] if serving else "", data.route_revision)

    return {
        trainer.TrainingJobSucceeded: training_job_succeeded,
        evaluator.EvaluationCompleted: evaluation_completed,
        evaluator.EvaluationFailed: evaluation_failed,
        gateway.RolloutCreated: rollout_created,
        gateway.EndpointRerouted: endpoint_rerouted,
    }
