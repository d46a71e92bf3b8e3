"""Ends processes of a suite in mid-pipeline, one by name and stage; what holds afterwards is told by the invariants."""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator

import psutil

from kit.rpc.errors import Fault
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types
from tests import invariants
from tests.pipeline import Pipeline, Run, engines, gone, until

#: Processes that the suite itself starts again.
SUPERVISED = ("nats", "registry", "dataset", "trainer", "evaluator", "gateway", "gateway-worker", "engine-host")
PROMOTED, ROLLED_BACK = gateway.ROLLOUT_STATE_PROMOTED, gateway.ROLLOUT_STATE_ROLLED_BACK


def pids(pipeline: Pipeline, name: str) -> list[int]:
    """The processes by that name: of the suite, `agent` and `recipe` of the running attempt, or `engine`."""
    if name in SUPERVISED:
        return [pipeline.suite.pids[name]] if name in pipeline.suite.pids else []
    if name == "engine":
        return [int(launch["pid"]) for launch in engines(pipeline.suite.home)]
    return [
        process.pid for process in attempts(pipeline) if ("recipe" in " ".join(process.cmdline())) == (name == "recipe")
    ]


def attempts(pipeline: Pipeline) -> Iterator[psutil.Process]:
    """The agent and the recipe of the attempt that runs; not what the leash becomes them from."""
    home = str(pipeline.suite.home)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environ = process.environ()
            mine = environ.get("SLUICE_HOME") == home or f"{home}/" in " ".join(process.cmdline())
            if mine and environ.get("SLUICE_ATTEMPT") and process.status() != psutil.STATUS_ZOMBIE:
                process.cmdline()
                yield process


def kill(pipeline: Pipeline, name: str) -> None:
    """SIGKILL; returns when what the suite supervises runs again."""
    found = until(lambda: pids(pipeline, name), f"a process `{name}`", 20)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if name in SUPERVISED:
        pipeline.suite.wait_restarted(name, found[0], 40)


def arm(pipeline: Pipeline, name: str, trap: str) -> None:
    """Starts a process of the suite anew with a failpoint, and waits until all serve."""
    folder = pipeline.suite.home / "run" / "arm"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(trap)
    kill(pipeline, name)
    gone(lambda: (folder / name).exists(), "the trap that was laid")
    calm(pipeline)


def fired(pipeline: Pipeline, name: str) -> list[str]:
    """What a process died of by a trap, each time: `after_commit`."""
    log = (pipeline.suite.home / "logs" / f"{name}.log").read_text("utf-8", "replace")
    return re.findall(r"^failpoint (\w+): SIGKILL$", log, re.MULTILINE)


def sprung(pipeline: Pipeline, name: str, trap: str, before: int) -> None:
    """Returns when the trap has ended the process once more than ``before``."""
    until(lambda: len(fired(pipeline, name)) > before, f"the death of `{name}` at {trap}", 20)
    assert fired(pipeline, name)[before:] == [trap.partition(":")[0]]


class Missed(Exception):
    """A stage was over before anybody looked: on a busy machine half a second of training may pass unseen."""


def _job(pipeline: Pipeline, job: str) -> bool:
    state = pipeline.client.jobs.get(job).state
    if state == types.JOB_STATE_SUCCEEDED:
        raise Missed
    return bool(state == types.JOB_STATE_RUNNING)


def _checkpoint(pipeline: Pipeline, job: str) -> bool:
    """A recipe that stops at step 5 has come there."""
    return bool(pipeline.client.jobs.get(job).progress.done >= 5)


def _evaluation(pipeline: Pipeline, job: str) -> bool:
    for version in pipeline.client.models.versions("-", filter=f'training_job = "{job}"'):
        found = pipeline.client.evaluations.list(filter=f'model_version = "{version.name}"')
        return any(each.state == types.JOB_STATE_RUNNING or each.HasField("report") for each in found)
    return False


def _canary(pipeline: Pipeline, job: str) -> bool:
    for version in pipeline.client.models.versions("-", filter=f'training_job = "{job}"'):
        found = pipeline.client.rollouts.list(filter=f'model_version = "{version.name}"')
        return any(each.state >= gateway.ROLLOUT_STATE_PROGRESSING for each in found)
    return False


STAGES: dict[str, Callable[[Pipeline, str], bool]] = {
    "training": _job,
    "checkpoint": _checkpoint,
    "evaluation": _evaluation,
    "canary": _canary,
}


def survive(
    pipeline: Pipeline, stage: str, harm: Callable[[], None], seed: int = 0, *, over: Callable[[], None] = lambda: None
) -> Run:
    """A run that is harmed at a stage, followed to its end under traffic; everything that must hold, holds.

    ``over`` returns when no more harm is to come.
    """
    with pipeline.traffic():
        job = _at(pipeline, stage, seed)
        harm()
        run = pipeline.follow(job)
    assert run.rollout is not None, run.version.gate_decision
    over()
    until(lambda: serves(pipeline), "a suite that serves")
    invariants.hold(pipeline)
    return run


def _at(pipeline: Pipeline, stage: str, seed: int) -> str:
    """A job that is at the stage now."""
    while True:
        # Whoever is told that a service is away submits again; a first job that did get through lives as well.
        job = until(lambda: pipeline.train(seed), "a job that is accepted")
        try:
            until(lambda job=job: STAGES[stage](pipeline, job), f"the stage {stage}")
        except Missed:
            pipeline.follow(job)  # and another
        else:
            return job


def calm(pipeline: Pipeline) -> None:
    """Returns when every process serves and users are answered: the ground that the next fault starts from."""
    until(lambda: serves(pipeline), "a suite that serves")
    with pipeline.traffic() as seen:
        seen.until(5)


def serves(pipeline: Pipeline) -> bool:
    """Whether every process says that it serves, and the gateway answers."""
    try:
        return pipeline.suite.command("status").returncode == 0 and bool(pipeline.client.endpoints.list())
    except Fault:
        return False
