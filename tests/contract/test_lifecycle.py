"""docs/lifecycle.md, sluice/lifecycle.py and the enums of the contract tell the same."""

import re
from pathlib import Path

import pytest

from kit.store import event_type
from sluice import lifecycle
from sluice.dataset import v1 as dataset
from sluice.evaluator import v1 as evaluator
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "lifecycle.md").read_text("utf-8")
ENTITIES = {
    "Job": (lifecycle.JOB, types.JobState, "JOB_STATE_"),
    "Upload": (lifecycle.UPLOAD, dataset.UploadState, "UPLOAD_STATE_"),
    "Erasure": (lifecycle.ERASURE, dataset.ErasureState, "ERASURE_STATE_"),
    "ModelVersion": (lifecycle.MODEL_VERSION, registry.ModelVersionState, "MODEL_VERSION_STATE_"),
    "TaskType": (lifecycle.TASK_TYPE, registry.TaskTypeState, "TASK_TYPE_STATE_"),
    "Rollout": (lifecycle.ROLLOUT, gateway.RolloutState, "ROLLOUT_STATE_"),
    "Deployment": (lifecycle.DEPLOYMENT, gateway.DeploymentState, "DEPLOYMENT_STATE_"),
    "CandidateRoute": (lifecycle.CANDIDATE_ROUTE, gateway.CandidateRouteState, "CANDIDATE_ROUTE_STATE_"),
}
#: Where an entity begins that does not begin as PENDING.
STARTS = {"Job": "CREATED", "Upload": "OPEN", "Erasure": "RUNNING", "TaskType": "PROPOSED", "CandidateRoute": "LOADING"}


def edges(name):
    """The transitions of the code as (old, new) words."""
    table, enum, prefix = ENTITIES[name]
    return {
        (enum.Name(old).removeprefix(prefix), enum.Name(new).removeprefix(prefix))
        for old, following in table.items()
        for new in following
    }


def section(name):
    return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S).group(1)


@pytest.mark.parametrize("name", ENTITIES)
def test_every_state_of_the_contract_has_its_row_in_the_code(name):
    table, enum, _ = ENTITIES[name]
    assert set(table) == set(enum.values()) - {0}


@pytest.mark.parametrize("name", ENTITIES)
def test_the_table_of_the_page_is_that_of_the_code(name):
    rows = re.findall(r"^\| ([A-Z_]+) \| [^|]+ \| ([^|]+) \|$", section(name), re.M)
    told = {(old, new) for old, after in rows for new in re.findall(r"[A-Z_]+", after)}
    assert told == edges(name) and len(rows) == len(ENTITIES[name][0])


@pytest.mark.parametrize("name", ENTITIES)
def test_the_diagram_of_the_page_is_that_of_the_code(name):
    diagram = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", section(name), re.S).group(1)
    drawn = set(re.findall(r"^ +(\S+) --> (\S+)$", diagram, re.M))
    states = {old for old, _ in drawn | edges(name)} | {new for _, new in drawn}
    ends = {(state, "[*]") for state in states - {old for old, _ in edges(name)} - {"[*]"}}
    start = {edge for edge in drawn if edge[0] == "[*]"}
    assert len(start) == 1 and drawn == edges(name) | ends | start


@pytest.mark.parametrize("name", ENTITIES)
def test_every_state_can_be_reached(name):
    reachable, queue = set(), [STARTS.get(name, "PENDING")]
    while queue:
        state = queue.pop()
        if state not in reachable:
            reachable.add(state)
            queue += [new for old, new in edges(name) if old == state]
    _, enum, prefix = ENTITIES[name]
    assert reachable == {word.removeprefix(prefix) for word in enum.keys()[1:]}


def test_a_failed_job_is_over_though_retry_may_queue_it():
    assert lifecycle.is_over(lifecycle.JOB, types.JOB_STATE_FAILED)
    assert not lifecycle.is_over(lifecycle.JOB, types.JOB_STATE_PAUSED)
    assert not lifecycle.can(lifecycle.JOB, types.JOB_STATE_SUCCEEDED, types.JOB_STATE_FAILED)


def test_the_story_names_events_that_exist():
    known = {
        event_type(kind).split(".v1.")[1]
        for module in (dataset, registry, gateway, trainer, evaluator)
        for kind in vars(module).values()
        if hasattr(kind, "DESCRIPTOR") and getattr(kind.DESCRIPTOR, "file", None)
        if kind.DESCRIPTOR.file.name.endswith("/events.proto")
    }
    story = PAGE.split("## Job")[0]
    assert set(re.findall(r"`([a-z_]+\.[a-z]+)`", story)) - {"rows.jsonl"} <= known
