"""``python -m services.trainer.agent``: the agent of the attempt that its environment names."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

from kit import telemetry
from kit.auth import Identity
from kit.blobs import FileKek, open_store
from kit.rpc.client import connect
from kit.rpc.errors import Fault
from services.trainer.agent.assignment import Assignment
from services.trainer.agent.attempt import Attempt
from services.trainer.agent.judge import Judges
from services.trainer.agent.recipe import RECIPES
from services.trainer.agent.reporter import Pace
from services.trainer.agent.staging import Sources
from services.trainer.folders import JobFolder
from services.trainer.token_cache import TokenCache
from sluice.dataset import v1 as dataset
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer


async def run(assigned: Assignment, recipes: Mapping[str, Sequence[str]], pace: Pace) -> None:
    """The composition root: connects with the trainer's own identity and does the attempt."""
    settings = assigned.settings
    identity = Identity.load(settings.identity_folder / "trainer.key")
    kek = FileKek.load(settings.kek_path, home=settings.home)
    blobs = open_store(settings.blobs_url, kek)
    channels = {
        peer: connect(settings.address(peer), token=lambda peer=peer: identity.token(peer))  # type: ignore[misc]
        for peer in ("trainer", "dataset", "registry")
    }
    sources = Sources(
        dataset.DatasetVersionServiceStub(channels["dataset"]),
        registry.ModelVersionServiceStub(channels["registry"]),
        blobs,
        dataset.AssetServiceStub(channels["dataset"]),
        TokenCache(settings.home / "cache" / "tokens", kek),
    )
    attempt = Attempt(
        assigned.job,
        assigned.epoch,
        folder=JobFolder.of(settings.home / "jobs", assigned.job.name),
        attempts=trainer.AttemptServiceStub(channels["trainer"]),
        sources=sources,
        environ=assigned.environ,
        recipes=recipes,
        judges=Judges(assigned.job, lambda: settings.address("http"), lambda: identity.token("gateway")),
        pace=pace,
    )
    try:
        with telemetry.with_traceparent(assigned.traceparent):
            with telemetry.span("attempt", job=assigned.job.name, epoch=assigned.epoch):
                await attempt.run()
    finally:
        for channel in channels.values():
            await channel.close()


def main(recipes: Mapping[str, Sequence[str]] = RECIPES, pace: Pace = Pace()) -> None:  # noqa: B008 - immutable
    """Does the attempt; what is wrong with the environment ends in one sentence and exit status 1."""
    os.umask(0o077)
    try:
        assigned = Assignment.from_env(os.environ)
        settings = assigned.settings
        about = telemetry.configure(
            "trainer-agent",
            otlp_endpoint=settings.otlp_endpoint,
            trace_folder=settings.home / "logs" / "traces",
            log_level=settings.log_level,
        )
        try:
            asyncio.run(run(assigned, recipes, pace))
        finally:
            about.shutdown()
    except (ValueError, OSError, Fault) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
