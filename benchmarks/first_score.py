"""``first_score_s``: from a job's success to the first scored rows of its version, on an engine that serves already."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks import recipes
from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from benchmarks.training import LORA, ROWS
from sluice import Client
from sluice.client.specs import Hyperparameters
from sluice.lifecycle import JOB, is_over
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests.suite import Suite

JOBS, QUICK_JOBS, STEPS = 5, 1, 20
ASKED: Hyperparameters = {**LORA, "max_steps": STEPS}
PATIENCE_S = 300.0
ENDPOINT = "assistant"


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Deploys a base, then trains adapters of it one after the other; each is judged by the base's engine."""
    base = recipes.make_base(folder / "base")
    suite = Suite(folder, environ={"OMP_NUM_THREADS": recipes.environ()["OMP_NUM_THREADS"]})
    try:
        suite.start()
        with Client(suite.state["address"], suite.key) as client:
            rows = client.datasets.upload(name="rows", path=ROWS, task_type="sft").name
            client.endpoints.create(ENDPOINT, "chat")
            version = client.models.import_folder(
                "base", base, dataset=rows, endpoint=ENDPOINT, gate_policy="baseline"
            ).name
            deploy(client, version)
            took = [first_score_s(client, seed) for seed in range(QUICK_JOBS if options.quick else JOBS)]
    finally:
        suite.close()
    low, high = order_bounds(took, 0.5)
    return [
        Figure(
            name="first_score_s",
            statistic="median",
            value=quantile(took, 0.5),
            low=low,
            high=high,
            n=len(took),
            target=None,
            start="time of the event training_job.succeeded",
            end="the evaluation's progress counts its first answers",
            beside="a whole suite; one engine that serves the base",
            details={"max": max(took)},
        )
    ]


def deploy(client: Client, version: str) -> None:
    """Waits until the base, which nobody has to ask for, serves."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(arm.model_version == version for arm in client.endpoints.get(ENDPOINT).route):
        if time.monotonic() > deadline:
            found = registry.ModelVersionState.Name(client.models.version(version).state)
            raise RuntimeError(f"the base does not serve after {PATIENCE_S:.0f} s; it is {found}")
        time.sleep(0.2)


def first_score_s(client: Client, seed: int) -> float:
    """One adapter, followed until its evaluation is over."""
    job = client.train(dataset="rows@1", model="adapter", base="base@1", endpoint=ENDPOINT, seed=seed, **ASKED)
    for snapshot in client.jobs.watch(job.name):
        last = snapshot
    if last.state != types.JOB_STATE_SUCCEEDED:
        raise RuntimeError(f"the job did not succeed: {last.failure.message}")
    succeeded = next(entry.time for entry in last.history if entry.state == types.JOB_STATE_SUCCEEDED)
    while not (versions := client.models.versions("-", filter=f'training_job = "{job.name}"')):
        time.sleep(0.02)
    while not (found := client.evaluations.list(filter=f'model_version = "{versions[0].name}"')):
        time.sleep(0.02)
    scored = 0
    for evaluation in client.evaluations.watch(found[0].name):
        if not scored and evaluation.progress.done:
            scored = evaluation.progress.time.ToNanoseconds()
        if is_over(JOB, evaluation.state) and evaluation.state != types.JOB_STATE_SUCCEEDED:
            raise RuntimeError(f"the evaluation did not succeed: {evaluation.failure.message}")
    return (scored - succeeded.ToNanoseconds()) / 1e9
