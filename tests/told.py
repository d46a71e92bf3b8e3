"""What the event logs tell of each resource, held to its life cycle and to what it is now (I4 of the fault list)."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise, takewhile
from typing import Any

from google.protobuf.json_format import Parse

from kit.store.unit import event_type
from sluice.dataset import v1 as dataset
from sluice.evaluator import v1 as evaluator
from sluice.events import v1 as events
from sluice.gateway import v1 as gateway
from sluice.lifecycle import MODEL_VERSION, ROLLOUT, Table, can
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.pipeline import Pipeline

SUCCEEDED = types.JOB_STATE_SUCCEEDED
PENDING = {"created": "PENDING"}


def every_change_told(pipeline: Pipeline, log: Iterable[events.Event]) -> None:
    """I4: the event logs have each state that a resource was in, once and in order, and nothing twice."""
    told: dict[str, list[events.Event]] = defaultdict(list)
    for event in log:
        told[event.subject].append(event)
    ids = Counter(event.id for each in told.values() for event in each)
    assert not (twice := [event for event, times in ids.items() if times > 1]), f"the logs have twice: {twice}"
    client = pipeline.client
    for made in [*client.datasets.list(), *client.models.list(), *client.endpoints.list()]:
        created = [event.type for event in told[made.name] if event.type.endswith(".created")]
        assert len(created) == 1, f"{made.name}: told {created}"
    for job in [*client.jobs.list(), *client.evaluations.list()]:
        history = [entry.state for entry in job.history]
        assert _job_states(told[job.name]) == history, f"{job.name}: told otherwise than it was, {history}"
    for name in [each.name for each in client.datasets.list()]:
        for version in client.datasets.versions(name):
            digests = [each.digest for each in _all(told[version.name], dataset.DatasetVersionCommitted)]
            assert digests == [version.digest], f"{version.name}: told {len(digests)} times"
    for version in client.models.versions("-"):
        _version_told(version, told[version.name])
    routes = {each.name: _all(told[each.name], gateway.EndpointRerouted) for each in client.endpoints.list()}
    for endpoint in client.endpoints.list():
        revisions = [each.route_revision for each in routes[endpoint.name]]
        assert revisions == sorted(set(revisions)), f"{endpoint.name}: told the revisions {revisions}"
        last = list(routes[endpoint.name][-1].route) if revisions else []
        assert last == list(endpoint.route), f"{endpoint.name}: another route was told"
    for rollout in client.rollouts.list():
        _rollout_told(rollout, told[rollout.name], routes[rollout.name.partition("/rollouts/")[0]])


def _version_told(version: registry.ModelVersion, log: list[events.Event]) -> None:
    states = _version_states(log)
    _goes_to(registry.ModelVersionState, MODEL_VERSION, version, states)
    decisions = [each.gate_decision for each in _all(log, registry.ModelVersionDecided)]
    last = [version.gate_decision] if version.HasField("gate_decision") else []
    assert decisions[-1:] == last, f"{version.name}: another decision was told"
    approvals = len(_all(log, registry.ModelVersionApproved))
    assert approvals == states.count(registry.MODEL_VERSION_STATE_APPROVED), f"{version.name}: {approvals} approvals"


def _rollout_told(rollout: gateway.Rollout, log: list[events.Event], routes: list[gateway.EndpointRerouted]) -> None:
    """Its states, and each step that its endpoint's routes show."""
    _goes_to(gateway.RolloutState, ROLLOUT, rollout, _rollout_states(log))
    weights = [each.weight_percent for each in _all(log, gateway.RolloutAdvanced)]
    shares = [arm.weight_percent for each in routes for arm in each.route if arm.model_version == rollout.model_version]
    steps = list(takewhile(lambda share: share < 100, shares))
    assert weights == steps, f"{rollout.name}: told the steps {weights}, but took {steps}"


def _all(log: Iterable[events.Event], message: Any) -> list[Any]:
    """The events of one kind, read."""
    return [Parse(event.data_json, message()) for event in log if event.type == event_type(message)]


def _job_states(log: Iterable[events.Event]) -> list[int]:
    """The states that the events of a job or an evaluation tell."""
    ends = {"created": types.JOB_STATE_CREATED, "succeeded": SUCCEEDED, "completed": SUCCEEDED}
    kinds: dict[str, tuple[Any, Any]] = {
        "training_job": (trainer.TrainingJobFailed, trainer.TrainingJobChanged),
        "evaluation": (evaluator.EvaluationFailed, evaluator.EvaluationChanged),
    }
    states = []
    for event in log:
        noun, _, verb = event.type.rpartition(".v1.")[2].partition(".")
        states.append(ends.get(verb) or Parse(event.data_json, kinds[noun][verb == "changed"]()).state)
    return states


def _version_states(log: Iterable[events.Event]) -> list[int]:
    """The states that the events of a version tell. A decision for APPROVED and its approval tell of one change."""
    states: list[int] = []
    decided = False
    for event in log:
        verb = event.type.rpartition(".")[2]
        if verb == "decided":
            state = Parse(event.data_json, registry.ModelVersionDecided()).state
        else:
            state = registry.ModelVersionState.Value(f"MODEL_VERSION_STATE_{PENDING.get(verb, verb.upper())}")
        if not (decided and verb == "approved" and states[-1] == state):
            states.append(state)
        decided = verb == "decided"
    return states


def _rollout_states(log: Iterable[events.Event]) -> list[int]:
    """The states that the events of a rollout tell. That it was prepared follows from its start; nobody tells it."""
    words = {**PENDING, "advanced": "PROGRESSING", "reverted": "ROLLED_BACK"}
    states: list[int] = []
    for event in log:
        verb = event.type.rpartition(".")[2]
        state = gateway.RolloutState.Value(f"ROLLOUT_STATE_{words.get(verb, verb.upper())}")
        if states == [gateway.ROLLOUT_STATE_PENDING] and verb in ("advanced", "promoted"):
            states.append(gateway.ROLLOUT_STATE_PREPARING)
        if verb != "advanced" or states[-1:] != [state]:
            states.append(state)
    return states


def _goes_to(words: Any, table: Table, resource: Any, told: list[int]) -> None:
    """Holds the states that were told to the life cycle, and the last to what the resource says itself."""
    steps = list(pairwise(told))
    way = f"{resource.name}: told {list(map(words.Name, told))}, is {words.Name(resource.state)}"
    assert told and words.Name(told[0]).endswith("_PENDING") and told[-1] == resource.state, way
    assert all(can(table, old, new) for old, new in steps), way
