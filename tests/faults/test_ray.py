"""The pipeline with its attempts on a real Ray cluster of one host, and what Ray and the trainer do when one dies."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from pipeline_faults import PROMOTED, kill, survive

from kit.rpc.ports import free_port
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.pipeline import Pipeline, pipeline, until

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]

WAITING = 10  # the seed of a recipe whose first attempt goes on only by being killed


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray head that reports nothing to anybody."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets have long names
    ports = {"port": free_port(), "dashboard-port": free_port(), "ray-client-server-port": free_port()}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
    command += ["--object-store-memory=100000000", *(f"--{name}={port}" for name, port in ports.items())]
    environ = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        until(partial(takes_jobs, address, process), "a Ray cluster that takes jobs", 90)
        yield address
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def end(head: "subprocess.Popen[bytes]") -> None:
    """Kills all of it: `ray start --block`, once asked to end, took more than half a minute."""
    parts = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    for part in parts:
        with suppress(psutil.NoSuchProcess):
            part.kill()
    head.wait(10)
    psutil.wait_procs(parts, 10)


def takes_jobs(address: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "ray ended"
    try:
        return httpx.get(f"{address}/api/jobs/", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def serving(cluster, tmp_path_factory):
    """A suite whose trainer has Ray run its attempts."""
    environ = {"SLUICE_TRAINER_BACKEND": "ray", "SLUICE_RAY_ADDRESS": cluster, "SLUICE_RAY_CPUS": "0.5"}
    with pipeline(tmp_path_factory.mktemp("suite"), **environ) as started:
        started.create_endpoint()
        started.base()
        yield started


def of_ray(cluster: str, job: trainer.TrainingJob) -> list[str]:
    """What Ray says of the attempts of a job, in order."""
    known = httpx.get(f"{cluster}/api/jobs/", trust_env=False).json()
    mine = {each["submission_id"]: each["status"] for each in known if each["metadata"] == {"training_job": job.name}}
    return [mine[name] for name in sorted(mine)]


def test_a_job_on_ray_becomes_a_served_version(running: Pipeline, cluster: str) -> None:
    run = survive(running, "training", lambda: None)
    assert run.rollout and run.rollout.state == PROMOTED
    assert [attempt.host for attempt in run.job.attempts] == [cluster]
    until(lambda: of_ray(cluster, run.job) == ["SUCCEEDED"], "Ray's word for it")


def test_an_attempt_that_dies_on_ray_goes_on_from_its_checkpoint(running: Pipeline, cluster: str) -> None:
    run = survive(running, "checkpoint", partial(kill, running, "agent"), WAITING)
    first, second = run.job.attempts
    assert first.outcome == "lost" and second.resumed_from_step == 5
    assert len(of_ray(cluster, run.job)) == 2


def test_a_trainer_that_dies_finds_its_attempt_on_ray_again(running: Pipeline, cluster: str) -> None:
    run = survive(running, "training", partial(kill, running, "trainer"))
    assert len(run.job.attempts) == len(of_ray(cluster, run.job)) == 1


def test_a_cancelled_job_leaves_nothing_on_ray(running: Pipeline, cluster: str) -> None:
    name = running.train(WAITING)
    until(lambda: running.client.jobs.get(name).progress.done >= 5, "a recipe that waits")
    running.client.jobs.cancel(name)
    until(lambda: running.client.jobs.get(name).state == types.JOB_STATE_CANCELLED, "a job that is cancelled")
    job = running.client.jobs.get(name)
    until(lambda: not {"PENDING", "RUNNING"} & set(of_ray(cluster, job)), "Ray's word for it")
