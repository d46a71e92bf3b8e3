"""kill -9 of one process in mid-pipeline; the pipeline goes on to one version, one evaluation and one rollout."""

from functools import partial

import pytest
from pipeline_faults import PROMOTED, ROLLED_BACK, SUPERVISED, kill, survive

from tests.pipeline import short

WAITING = 10  # the seed of a recipe whose first attempt goes on only by being killed


def test_an_attempt_whose_agent_is_killed_goes_on_from_its_checkpoint(running):
    run = survive(running, "checkpoint", partial(kill, running, "agent"), WAITING)
    first, second = run.job.attempts
    assert first.outcome == "lost" and second.resumed_from_step == 5
    assert run.rollout.state == PROMOTED


def test_the_registry_and_the_bus_are_killed_while_a_version_is_judged(running):
    def harm():
        kill(running, "registry")
        kill(running, "nats")

    assert survive(running, "evaluation", harm).rollout.state == PROMOTED


def test_the_gateway_is_killed_in_the_canary_and_no_user_notices(running):
    with running.traffic() as seen:
        run = survive(running, "canary", partial(kill, running, "gateway"))
    assert run.rollout.state == PROMOTED and not seen.failures
    assert seen.answers[short(run.version.name)]


@pytest.mark.prove
@pytest.mark.parametrize("stage", ["training", "evaluation", "canary"])
@pytest.mark.parametrize("name", [*SUPERVISED, "engine"])
def test_any_process_at_any_stage(running, name, stage):
    run = survive(running, stage, partial(kill, running, name))
    # Where the engine itself went, the canary may be blamed for the requests that it lost.
    blamed = name in ("engine", "engine-host", "gateway-worker") and stage == "canary"
    assert run.rollout.state == PROMOTED or (blamed and run.rollout.state == ROLLED_BACK), run.rollout


@pytest.mark.prove
@pytest.mark.parametrize("name", ["agent", "recipe"])
def test_a_process_of_an_attempt(running, name):
    run = survive(running, "checkpoint", partial(kill, running, name), WAITING)
    assert len(run.job.attempts) == 2 and run.job.attempts[1].resumed_from_step == 5
    assert run.rollout.state == PROMOTED
