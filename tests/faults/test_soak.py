"""A soak: jobs one after another under traffic, first while processes are killed at random, then in peace."""

import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress

import psutil
import pytest
from pipeline_faults import SUPERVISED, calm, pids

from sluice.gateway import v1 as gateway
from sluice.types import v1 as types
from tests import invariants
from tests.pipeline import Pipeline, Run, engines, until
from tests.seed import SEED

pytestmark = [pytest.mark.prove, pytest.mark.timeout(480)]

STORM_S, PEACE_S = 240.0, 120.0
VICTIMS = (*SUPERVISED, "engine", "agent", "recipe")
#: Seconds between two deaths.
PAUSES = (1.0, 6.0)
Memory = dict[tuple[str, int], list[float]]


class Killer(threading.Thread):
    """Kills one process after the other, in an order that the seed gives; whoever is not there is passed over."""

    def __init__(self, suite: Pipeline) -> None:
        super().__init__(daemon=True)
        self.suite = suite
        self.deaths: Counter[str] = Counter()
        self.over = threading.Event()

    def run(self) -> None:
        draw = random.Random(SEED)
        while not self.over.wait(draw.uniform(*PAUSES)):
            name = draw.choice(VICTIMS)
            for pid in pids(self.suite, name):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.deaths[name] += 1


def test_every_job_comes_to_its_end_while_processes_are_killed(running, capsys):
    killer = Killer(running)
    killer.start()
    try:
        runs = jobs(running, STORM_S)
    finally:
        killer.over.set()
        killer.join()
    calm(running)
    invariants.hold(running)
    tell(capsys, f"\n{len(runs)} jobs, {killer.deaths.total()} deaths: {dict(killer.deaths)}; ends: {ends(runs)}")


def test_memory_in_peace_is_reported(running, capsys):
    calm(running)
    memory: Memory = defaultdict(list)
    runs = jobs(running, PEACE_S, memory)
    invariants.hold(running)
    assert set(ends(runs)) == {"SUCCEEDED PROMOTED"}
    tell(
        capsys, f"\n{len(runs)} jobs in peace; own memory of each process, growth by least squares over the later half:"
    )
    for (name, _), values in sorted(memory.items()):
        later = values[len(values) // 2 :]
        if len(later) >= 2:
            growth = statistics.linear_regression(range(len(later)), later).slope
            figures = " → ".join(f"{value:.1f}" for value in (values[0], later[0], later[-1]))
            tell(capsys, f"  {name:15} {figures} MB, {growth:+.2f} MB a job")


def jobs(running: Pipeline, seconds: float, memory: Memory | None = None) -> list[Run]:
    """Submits jobs, each when the last has come to its end, for so long; users ask all the while."""
    runs, end = [], time.monotonic() + seconds
    with running.traffic():
        while time.monotonic() < end:
            runs.append(running.follow(until(running.train, "a job that is accepted")))
            for key, mb in own_memory_mb(running).items() if memory is not None else ():
                memory[key].append(mb)
    return runs


def ends(runs: list[Run]) -> Counter[str]:
    """How many runs ended in which states of job and rollout."""
    return Counter(ended(run) for run in runs)


def ended(run: Run) -> str:
    """`SUCCEEDED PROMOTED`: how the job ended, and its rollout where there is one."""
    job = types.JobState.Name(run.job.state).removeprefix("JOB_STATE_")
    rollout = (
        gateway.RolloutState.Name(run.rollout.state).removeprefix("ROLLOUT_STATE_") if run.rollout else "no rollout"
    )
    return f"{job} {rollout}"


def own_memory_mb(running: Pipeline) -> dict[tuple[str, int], float]:
    """What each process of the suite has for itself alone (USS), in MB (10^6 bytes), by name and process id."""
    state = running.suite.state
    processes = {**state["processes"], "up": state["pid"]}
    found = {(name, pid): pid for name, pid in processes.items()}
    found |= {("engine", launch["pid"]): launch["pid"] for launch in engines(running.suite.home)}
    return {key: psutil.Process(pid).memory_full_info().uss / 1e6 for key, pid in found.items()}


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Shows a line of the report, whether the test passes or not."""
    with capsys.disabled():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
