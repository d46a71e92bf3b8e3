"""The broker loses its data or hangs in mid-pipeline, everything is killed at once, events come ten times."""

import asyncio
import os
import random
import shutil
import signal
import time
from functools import partial

import pytest
from pipeline_faults import PROMOTED, ROLLED_BACK, SUPERVISED, serves, survive
from poison import again

from tests.pipeline import until
from tests.seed import SEED

pytestmark = [pytest.mark.prove, pytest.mark.timeout(240)]

MID = ("training", "evaluation", "canary")


@pytest.mark.parametrize("stage", MID)
def test_the_broker_loses_its_data(running, stage):
    def harm():
        killed = running.suite.pids["nats"]
        os.kill(killed, signal.SIGKILL)
        shutil.rmtree(running.suite.home / "nats" / "jetstream")
        running.suite.wait_restarted("nats", killed, 40)

    assert survive(running, stage, harm).rollout.state == PROMOTED


def test_the_broker_hangs_for_a_minute(running):
    def harm():
        broker = running.suite.pids["nats"]
        os.kill(broker, signal.SIGSTOP)
        time.sleep(60)  # what the fault is
        os.kill(broker, signal.SIGCONT)

    assert survive(running, "evaluation", harm).rollout.state == PROMOTED


@pytest.mark.parametrize("stage", MID)
def test_every_event_comes_ten_times_and_out_of_order_among_poison(running, stage):
    """Poison ends as dead letters and valid events do not; `again` asserts it."""
    run = survive(running, stage, lambda: asyncio.run(again(running, 10)))
    assert run.rollout.state == PROMOTED
    asyncio.run(again(running, 10))
    survive(running, stage, lambda: None)


@pytest.mark.parametrize("number", range(5))
def test_all_are_killed_at_once(running, number):
    """In a drawn order, at a drawn stage; all serve again within a minute."""
    draw = random.Random(f"{SEED}-{number}")
    stage = draw.choice(MID)

    def harm():
        killed = running.suite.pids
        for name in draw.sample(SUPERVISED, len(SUPERVISED)):
            os.kill(killed[name], signal.SIGKILL)
        for name in SUPERVISED:
            running.suite.wait_restarted(name, killed[name], 60)
        until(partial(serves, running), "a suite that serves", 60)

    run = survive(running, stage, harm)
    # A canary may be blamed for the requests that were lost.
    assert run.rollout.state == PROMOTED or (stage == "canary" and run.rollout.state == ROLLED_BACK), run.rollout
