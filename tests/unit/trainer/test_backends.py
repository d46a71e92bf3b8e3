"""What agents are told and not told, and a Ray cluster that is away; how agents run is tested with real ones."""

import json

import pytest

from kit.rpc.errors import Unavailable
from kit.rpc.ports import free_port
from services.trainer.backends.attempts import agent_environ, agent_log
from services.trainer.backends.ray import RayBackend
from services.trainer.settings import TrainerSettings
from sluice.trainer import v1 as trainer

JOB = trainer.TrainingJob(name="projects/p/trainingJobs/j", traceparent="00-a-b-01")
SECRETS = {
    "SLUICE_NATS_PASSWORD": "nats",
    "SLUICE_NATS_PASSWORD_TRAINER": "nats",
    "SLUICE_DATABASE_URL": "postgresql://user:password@host/x",
}


def test_an_agent_gets_its_attempt_and_no_secret_of_the_trainer():
    told = agent_environ({**SECRETS, "SLUICE_KEK": "/kek", "PATH": "/bin"}, JOB, 3)
    assert not SECRETS.keys() & told.keys()
    assert {"SLUICE_KEK": "/kek", "SLUICE_EPOCH": "3", "SLUICE_ATTEMPT": "j/3", "TRACEPARENT": "00-a-b-01"}.items() <= (
        told.items()
    )


def test_the_folder_of_an_attempt_is_for_nobody_else(tmp_path):
    log = agent_log(tmp_path, JOB, 1)
    assert log.parent.stat().st_mode & 0o077 == log.parent.parent.stat().st_mode & 0o077 == 0


async def test_a_cluster_that_is_away_is_named_and_its_agents_are_taken_to_live(tmp_path):
    address = f"http://127.0.0.1:{free_port()}"
    backend = RayBackend(tmp_path, {}, address)
    handle = json.dumps({"submission": "sluice-j-1"})
    with pytest.raises(Unavailable, match=f"Ray does not answer at {address}.*SLUICE_RAY_ADDRESS"):
        await backend.start(JOB, 1)
    with pytest.raises(Unavailable):
        await backend.stop(handle)
    assert await backend.alive(handle)
    await backend.close()


def test_an_address_that_is_no_url_is_refused(tmp_path):
    environ = {"SLUICE_HOME": str(tmp_path), "SLUICE_RAY_ADDRESS": "head:8265"}
    with pytest.raises(ValueError, match="SLUICE_RAY_ADDRESS is `head:8265`; it takes the URL"):
        TrainerSettings.from_env(environ)
