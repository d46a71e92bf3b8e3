"""What becomes of versions that are not good enough: at the gate, in the canary, and when an approval is taken away."""

import json

import pytest

from kit.rpc.errors import Denied, Unauthenticated
from sluice import Client
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests import invariants
from tests.node_client import run as run_node
from tests.pipeline import ENDPOINT, Pipeline, short, until

ROLLED_BACK, PROMOTED = gateway.ROLLOUT_STATE_ROLLED_BACK, gateway.ROLLOUT_STATE_PROMOTED
#: The first share stays until somebody decides.
SLOW = ((50, 0.3, 100_000), (100, 0, 0))
#: The states of a job that goes well; a watch may miss one that is short.
WAY = ("CREATED", "VALIDATING", "QUEUED", "PREPARING", "RUNNING", "SUCCEEDED")


@pytest.fixture(autouse=True)
def invariants_hold(running: Pipeline):
    """After each test, whatever it did."""
    yield
    invariants.hold(running)


def test_a_worse_model_is_refused_with_reasons_and_gets_no_traffic(running):
    running.let_in_by((50, 0.3, 5), (100, 0, 0))
    with running.traffic() as seen:
        good = running.follow(running.train())
        before = running.route()
        worse = running.follow(running.train(seed=1))
    assert good.rollout and good.rollout.state == PROMOTED
    decision = worse.version.gate_decision
    assert worse.version.state == registry.MODEL_VERSION_STATE_REJECTED and decision.verdict == registry.VERDICT_FAIL
    assert worse.evaluation.incumbent == good.version.name
    assert decision.reasons[0].startswith("exact_match 0 [0, 0], wanted at least 0.99 (incumbent 1 − 0.01)")
    assert worse.rollout is None and short(worse.version.name) not in seen.answers and not seen.failures
    assert running.route() == before == {short(good.version.name): 100}


def test_a_client_in_another_language_trains_through_the_one_public_port(running, node_client):
    running.let_in_by((50, 0.3, 5), (100, 0, 0))
    rows = running.rows_of("from-node", "sft", 500)
    wanted = ["--train", "--base", "projects/default/models/base/versions/1", "--endpoint", ENDPOINT]
    address = running.suite.state["address"]
    with running.traffic():
        done = run_node(node_client, address, running.suite.key, rows, *wanted, "--max-steps", "8")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        made = running.follow(told["job"])
    assert told["rows"] == 500 and made.job.spec.dataset_version == told["version"]
    assert told["model_version"] == made.version.name == "projects/default/models/from-node/versions/1"
    assert made.rollout and made.rollout.state == PROMOTED and running.route() == {"from-node@1": 100}
    states = [state.removeprefix("JOB_STATE_") for state in told["states"]]
    assert states == [state for state in WAY if state in states] and states[-2:] == ["RUNNING", "SUCCEEDED"]
    wrong = ["--dataset", "again", "--train", "--base", "base@1"]
    refused = run_node(node_client, address, running.suite.key, rows, *wrong)
    assert refused.returncode == 1 and "base_model_version" in refused.stderr, refused.stderr


def test_a_label_goes_the_way_of_what_it_extends_under_its_own_gate(running):
    client, address = running.client, running.suite.state["address"]
    running.let_in_by((50, 0.3, 5), (100, 0, 0))
    own = {"metrics": ["rouge_l"], "gate_policy": "baseline", "suite_max_rows": 40, "submit_roles": ["operations"]}
    proposed = client.task_types.propose("radiology-report", "sft", **own)
    with Client(address, client.keys.create("second person", ["algorithm", "approver"]).secret) as other:
        other.task_types.approve("radiology-report", proposed.etag)
        rows = running.upload("reports", "radiology-report", 500)
        refused = until(lambda: denied(other, rows), "the refusal of a job")
    assert "second-person` may not submit jobs of task type `radiology-report`; it is for operations" in refused
    with running.traffic():
        made = running.follow(running.train(dataset=rows, model="reports", task_type="radiology-report"))
    assert made.job.spec.WhichOneof("recipe") == "sft" and made.version.task_type == "radiology-report"
    assert made.version.gate_policy == "baseline" and made.version.interface == "chat"
    assert [metric.name for metric in made.evaluation.report.metrics] == ["rouge_l"], made.evaluation
    assert made.evaluation.suite.max_rows == 40 and made.evaluation.report.rows_scored == 40
    assert made.rollout and made.rollout.state == PROMOTED and running.route() == {"reports@1": 100}


def denied(client, rows):
    """What the trainer says to a job of somebody who may not submit it; empty while it has not heard of the key."""
    try:
        client.train(dataset=rows, model="reports", base="base@1", task_type="radiology-report")
    except Unauthenticated:
        return ""
    except Denied as refusal:
        return refusal.message


@pytest.mark.parametrize(
    ("faults", "reason"),
    [({"status": 500}, "requests failed, which is more than the incumbent's"), ({"delay_s": 0.4}, "p95 is ")],
    ids=["errors", "latency"],
)
def test_a_version_that_goes_bad_in_the_canary_is_rolled_back(running, faults, reason):
    running.let_in_by(*SLOW)
    before = running.route()
    with running.traffic(threads=4) as seen:
        job = running.train()
        version = running.version_of(job).name
        running.at_weight(version, 50)
        running.spoil(version, **faults)
        run = running.follow(job)
    running.spoil(version)
    assert run.rollout and run.rollout.state == ROLLED_BACK and reason in run.rollout.reason, run.rollout
    last = run.rollout.analysis_runs[-1]
    assert (
        last.decision == gateway.STEP_DECISION_ROLL_BACK and last.candidate.requests >= 5 and last.weight_percent == 50
    )
    assert running.route() == before and set(seen.failures) <= {"500", "502", "503"}
    assert run.version.state == registry.MODEL_VERSION_STATE_APPROVED
    with running.traffic() as after:
        after.until(30)
    assert set(after.answers) == set(before) and not after.failures


def test_a_revoked_approval_takes_the_traffic_away_at_once(running):
    running.let_in_by(*SLOW)
    before = running.route()
    with running.traffic() as seen:
        job = running.train()
        version = running.version_of(job).name
        running.at_weight(version, 50)
        seen.until(20, short(version))
        running.client.models.revoke(version, "somebody looked at it")
        run = running.follow(job)
        seen.until(seen.answers.total() + 50)
    assert run.rollout and run.rollout.state == ROLLED_BACK and run.rollout.reason == "its approval was taken away"
    assert run.version.state == registry.MODEL_VERSION_STATE_REVOKED and run.job.state == types.JOB_STATE_SUCCEEDED
    assert running.route() == before and not seen.failures
    log = running.client.events().list(limit=0)
    late_s = invariants.served_only_approved(running.suite.home, log)
    assert late_s < 1, f"the last request was admitted {late_s:.3f} s after the revocation"
    reverted = [event for event in log if event.type.endswith("rollout.reverted") and event.subject == run.rollout.name]
    assert len(reverted) == 1
