"""The trainer as its own process, on a real broker: it serves, refuses what it should, and stops."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import trainer_parts

from kit.auth import Identity
from kit.rpc.client import connect
from kit.rpc.ports import free_port
from sluice.trainer import v1 as trainer
from tests.servers import nats_server

ROOT = Path(__file__).resolve().parents[2]


async def test_the_process_serves_and_stops(tmp_path: Path) -> None:
    with nats_server(tmp_path / "nats") as nats:
        async with trainer_parts.world(tmp_path, [free_port() for _ in range(3)]) as world:
            password = {"SLUICE_NATS_PASSWORD": nats.credentials["trainer"].password}
            environ = {**world.environ, **password, "SLUICE_NATS_URL": nats.url, "ENABLE_AUTH": "false"}
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.trainer", env=environ, cwd=ROOT
            )
            try:
                async with connect(world.settings.address("trainer")) as channel:
                    await asyncio.wait_for(channel.channel_ready(), 30)
                    stub = trainer.TrainingJobServiceStub(channel)
                    answer = await stub.ListTrainingJobs(trainer.ListTrainingJobsRequest(parent="projects/p"))
                    assert not answer.training_jobs
                    report = trainer.ReportAttemptRequest(training_job="projects/p/trainingJobs/x", epoch=1)
                    own = Identity.load(world.settings.identity_folder / "trainer.key").token("trainer")
                    with pytest.raises(grpc.aio.AioRpcError) as raised:
                        await trainer.AttemptServiceStub(channel).ReportAttempt(
                            report, metadata=(("authorization", f"Bearer {own}"),)
                        )
                    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
            finally:
                process.terminate()
                assert await asyncio.wait_for(process.wait(), 20) == 0


def test_a_mistake_in_the_environment_is_one_sentence(tmp_path: Path) -> None:
    environ = {"SLUICE_HOME": str(tmp_path), "SLUICE_TRAINER_BACKEND": "moon"}
    done = subprocess.run(
        [sys.executable, "-m", "services.trainer"], env=environ, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "error: SLUICE_TRAINER_BACKEND is `moon`; it takes one of local, ray\n"
