"""A service dies at each of its state edges; the pipeline goes on to one version, one evaluation and one rollout."""

import random
from functools import partial

import pytest
from pipeline_faults import PROMOTED, arm, calm, fired, sprung, survive

from tests import invariants
from tests.pipeline import until
from tests.seed import SEED

pytestmark = [pytest.mark.prove, pytest.mark.timeout(180)]


def passes(
    start: int, commits: int, batches: int, events: int = 0, **own: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """The first and the last time that a service passes each point by itself in the run of one job.

    ``start``: commits of its own start, which come before the run. ``commits``: those that the run makes for certain,
    ``batches`` that it publishes and ``events`` that it takes. What may merge under load is counted as one; counted
    in quiet runs there are half as many again.
    """
    points = dict.fromkeys(("before_commit", "after_commit"), (start + 1, start + commits))
    points |= dict.fromkeys(("before_publish", "after_publish", "after_mark"), (1, batches))
    points |= dict.fromkeys(("before_ack", "after_ack"), (1, events)) if events else {}
    return points | own


ONCE = (1, 1)
POINTS = {
    # A job that succeeds, its evaluation, its rollout, three routes; tells the version, the decision, `stable`.
    "registry": passes(4, 9, 3, 6),
    "trainer": passes(3, 9, 2, before_spawn=ONCE, after_spawn=ONCE),
    "evaluator": passes(1, 6, 2, 1, evaluator_prepared=ONCE, evaluator_before_batch=ONCE, evaluator_before_report=ONCE),
    # An approval; tells the rollout and three routes, which are seconds apart.
    "gateway": passes(2, 9, 4, 1, gateway_before_route=(1, 3), gateway_after_route=(3, 5)),
    # An upload to a new dataset.
    "dataset": passes(1, 5, 2, dataset_before_version=ONCE),
}


def traps(*names: str) -> list[tuple[str, str]]:
    """Each service with each point that it passes; how often it passes before it dies is drawn.

    The services take turns: one that dies over and over is started again ever more slowly.
    """
    draw = random.Random(SEED)
    every = dict.fromkeys(point for name in names for point in POINTS[name])
    points = [(name, point) for point in every for name in names if point in POINTS[name]]
    return [(name, f"{point}:kill:{draw.randint(*POINTS[name][point])}") for name, point in points]


@pytest.mark.parametrize(("name", "trap"), traps("registry", "trainer", "evaluator", "gateway"))
def test_a_service_dies_at_a_state_edge(running, name, trap):
    before = len(fired(running, name))
    arm(running, name, trap)
    run = survive(running, "canary", lambda: None, over=partial(sprung, running, name, trap, before))
    assert run.rollout.state == PROMOTED


@pytest.mark.parametrize(("name", "trap"), traps("dataset"))
def test_the_dataset_service_dies_at_a_state_edge(running, name, trap):
    before = len(fired(running, name))
    arm(running, name, trap)
    dataset = trap.partition(":")[0].replace("_", "-")
    until(lambda: running.upload(dataset, "sft", 50), "an upload that is accepted")
    sprung(running, name, trap, before)
    calm(running)
    assert [each.version for each in running.client.datasets.versions(dataset)] == [1]
    invariants.hold(running)
