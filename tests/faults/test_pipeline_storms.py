"""The long tier of pipelines: a service dies at each state edge, the broker loses its data, events come ten times."""

import asyncio
import json
import os
import random
import shutil
import signal

import pytest
from pipeline_faults import PROMOTED, arm, calm, survive

from kit.bus import Bus
from kit.bus.cloud_events import encode
from sluice.events import v1 as events
from tests.pipeline import Pipeline, pipeline

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]

SEED = int(os.environ.get("SEED", "7"))
EDGES = ("before_commit", "after_commit", "before_publish", "after_publish", "after_mark", "before_ack", "after_ack")
OWN = {
    "registry": (),
    "trainer": ("before_spawn", "after_spawn"),
    "evaluator": ("evaluator_prepared", "evaluator_before_batch", "evaluator_before_report"),
    "gateway": ("gateway_before_route", "gateway_after_route"),
}


def traps() -> list[tuple[str, str]]:
    """Each service with each point that it passes; how often it passes before it dies is drawn."""
    draw = random.Random(SEED)
    made = [(name, f"{edge}:kill:{draw.randint(1, 9)}") for name in OWN for edge in EDGES]
    made += [(name, f"{point}:kill:{draw.randint(1, 2)}") for name, points in OWN.items() for point in points]
    return [(name, trap) for name, trap in made if (name, trap.split("_")[-1][:3]) != ("trainer", "ack")]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A suite whose base serves; it stays the same through all faults."""
    with pipeline(tmp_path_factory.mktemp("suite")) as started:
        started.create_endpoint()
        started.base()
        yield started


@pytest.fixture(autouse=True)
def from_calm(running: Pipeline):
    """Each fault hits a suite that has recovered from the last."""
    calm(running)


@pytest.mark.parametrize(("name", "trap"), traps())
def test_a_service_dies_at_a_state_edge(running, name, trap, record_property):
    before = arm(running, name, trap)
    run = survive(running, "canary", lambda: None)
    record_property("sprung", running.suite.pids[name] != before)
    assert run.rollout.state == PROMOTED


@pytest.mark.parametrize("stage", ["training", "evaluation", "canary"])
def test_the_broker_loses_its_data(running, stage):
    def harm():
        killed = running.suite.pids["nats"]
        os.kill(killed, signal.SIGKILL)
        shutil.rmtree(running.suite.home / "nats" / "jetstream")
        running.suite.wait_restarted("nats", killed, 40)

    assert survive(running, stage, harm).rollout.state == PROMOTED


@pytest.mark.parametrize("stage", ["training", "evaluation", "canary"])
def test_every_event_comes_ten_times_and_out_of_order_among_poison(running, stage):
    run = survive(running, stage, lambda: asyncio.run(again(running, 10)))
    assert run.rollout.state == PROMOTED
    asyncio.run(again(running, 10))
    survive(running, stage, lambda: None)


async def again(running: Pipeline, times: int) -> None:
    """Sends all events of all services again, shuffled and with no message id that the broker would know."""
    draw = random.Random(SEED)
    logs: dict[str, list[events.Event]] = {}
    for event in await asyncio.to_thread(running.client.events().list, limit=0):
        logs.setdefault(event.source, []).append(event)
    who = json.loads((running.suite.home / "nats" / "credentials.json").read_text())
    for service, log in logs.items():
        url = f"nats://127.0.0.1:{running.suite.ports['nats']}"
        bus = await Bus.connect(url, service, who[service], service)
        await bus.wait_ready()
        sending = [(event.type, encode(event)) for event in log] * times
        sending += [(log[0].type, b"no JSON"), (log[-1].type, b"{}"), (f"sluice.{service}.v1.thing.done", b"{}")]
        draw.shuffle(sending)
        for subject, payload in sending:
            await bus.jetstream.publish(subject, payload, timeout=10)
        await bus.close()
