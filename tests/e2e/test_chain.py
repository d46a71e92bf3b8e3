"""The life of a model from upload to traffic: five real services, real NATS and gRPC, made-up recipes and engines."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests import invariants
from tests.pipeline import ENDPOINT, MARK, Pipeline, Run, pipeline, row, short, until
from tests.servers import ALL, postgres_server

#: Of the trace of a job, what tells its story; by process.
STORY = {
    ("cli", "sluice train"),
    ("gateway", "sluice.trainer.v1.TrainingJobService/CreateTrainingJob"),
    ("trainer", "sluice.trainer.v1.TrainingJobService/CreateTrainingJob"),
    ("trainer-agent", "attempt"),
    ("trainer-agent", "train"),
    ("registry", "handle sluice.trainer.v1.training_job.succeeded"),
    ("evaluator", "handle sluice.registry.v1.model_version.created"),
    ("evaluator", "evaluator.evaluate"),
    ("gateway", "sluice.gateway.v1.CandidateRouteService/CreateCandidateRoute"),
    ("gateway", "load model"),
    ("engine-host", "sluice.gateway.v1.EngineHostService/LoadModel"),
    ("engine-host", "engine.fetch"),
    ("engine-host", "engine.prove"),
    ("engine-host", "engine.start"),
    ("engine-host", "engine.load"),
    ("evaluator", "evaluator.ask"),
    ("registry", "handle sluice.evaluator.v1.evaluation.completed"),
    ("registry", "gate"),
    ("gateway", "handle sluice.registry.v1.model_version.approved"),
    ("gateway", "start_rollout"),
    ("gateway", "advance_rollout"),
    ("registry", "handle sluice.gateway.v1.endpoint.rerouted"),
}


def test_a_dataset_becomes_a_served_model(tmp_path):
    with pipeline(tmp_path) as running:
        live(running)


@pytest.mark.postgres
def test_a_dataset_becomes_a_served_model_on_postgresql(tmp_path):
    with postgres_server() as server:
        with pipeline(tmp_path, SLUICE_DATABASE_URL=asyncio.run(databases(server))) as running:
            live(running)
            assert not list((running.suite.home / "db").iterdir())


async def databases(server: str) -> str:
    """Five empty databases; the URL that has `{service}` in place of the service."""
    import asyncpg
    from sqlalchemy.engine import make_url

    connection = await asyncpg.connect(server)
    for service in ALL:
        await connection.execute(f'CREATE DATABASE "sluice_{service}"')
    await connection.close()
    return (
        make_url(server)
        .set(database="sluice_SERVICE")
        .render_as_string(hide_password=False)
        .replace("SERVICE", "{service}")
    )


def live(running: Pipeline) -> None:
    """A base is trained and serves; an adapter on it is trained, judged, let in step by step, and answers."""
    running.create_endpoint()
    base = running.base()
    assert base.rollout and base.rollout.state == gateway.ROLLOUT_STATE_PROMOTED and not base.rollout.incumbent
    assert base.version.gate_policy == "baseline" and not base.evaluation.incumbent
    assert running.route() == {"base@1": 100}

    with running.traffic() as seen:
        run = running.follow(by_command(running))
    assert run.rollout and run.rollout.state == gateway.ROLLOUT_STATE_PROMOTED
    assert not seen.failures and seen.answers["base@1"] and seen.answers["adapter@1"], seen
    assert run.evaluation.incumbent == run.rollout.incumbent == base.version.name
    progress = run.evaluation.progress
    assert progress.done == progress.total and progress.phase == "asking base@1", progress
    figures = {metric.name: metric.value for metric in run.evaluation.report.metrics}
    assert figures == {"exact_match": 1, "rouge_l": 1, "bleu_4": 1} and not run.evaluation.report.rows_failed
    assert run.version.gate_decision.verdict == registry.VERDICT_PASS and run.version.gate_policy == "no-regression"
    assert running.route() == {"adapter@1": 100} and running.stable("adapter") == 1 and running.stable("base") == 0

    came_from(running, run, base)
    answers(running)
    log = running.client.events().list(limit=0)
    for each in (base, run):
        invariants.told_in_order(each, log)
    weights = [each.weight_percent for each in run.rollout.plan.steps]
    advanced = [event for event in log if event.type.endswith("rollout.advanced")]
    assert weights == [10, 50, 100] and len(advanced) == 2
    traced(running, run)
    invariants.hold(running)


def by_command(running: Pipeline) -> str:
    """Submits an adapter as a person does; returns the job."""
    flags = {"dataset": "rows@1", "model": "adapter", "base": "base@1", "endpoint": ENDPOINT, "max-steps": "8"}
    command = [Path(sys.executable).with_name("sluice"), "train", "--json"]
    command += [word for name, value in flags.items() for word in (f"--{name}", value)]
    done = subprocess.run(command, env=running.suite.variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["name"])


def came_from(running: Pipeline, run: Run, base: Run) -> None:
    """The version says all that is behind it."""
    lineage = run.version.lineage
    rows = running.client.datasets.version("rows@1")
    assert (lineage.training_job, lineage.evaluation) == (run.job.name, run.evaluation.name)
    assert run.rollout and list(lineage.rollouts) == [run.rollout.name]
    assert (lineage.dataset_version, lineage.dataset_digest) == (rows.name, rows.digest)
    assert lineage.recipe == "sft" and run.version.base_model_version == base.version.name
    assert run.job.result.base_digest == base.version.artifact.digest
    assert run.version.artifact.kind == types.ARTIFACT_KIND_ADAPTER and lineage.creator == run.job.creator


def answers(running: Pipeline) -> None:
    """The official client gets the adapter's answer whole and in pieces, and its usage."""
    (message, reference) = row("sft", 1_000_003)["messages"]
    state = running.suite.state
    with OpenAI(base_url=f"{state['http']}/v1", api_key=running.suite.key, max_retries=0) as client:
        assert ENDPOINT in [model.id for model in client.models.list()]
        whole = client.chat.completions.with_raw_response.create(model=ENDPOINT, messages=[message])
        assert short(whole.headers["x-sluice-version"]) == "adapter@1"
        assert whole.parse().choices[0].message.content == reference["content"]
        pieces = client.chat.completions.create(
            model=ENDPOINT, messages=[message], stream=True, stream_options={"include_usage": True}
        )
        chunks = list(pieces)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == reference["content"] and chunks[-1].usage.completion_tokens == len(text.split())
        done = client.completions.create(model=ENDPOINT, prompt=f"{MARK} alone")
        assert done.choices[0].text == f"{MARK} alone"


def traced(running: Pipeline, run: Run) -> None:
    """From the command that submitted the job to the last step of its rollout all is one trace without a gap."""
    trace = invariants.trace_id(run.job.traceparent)

    def kept() -> list[dict[str, Any]]:
        return invariants.spans_of(running.suite.home, trace)

    def whole() -> bool:
        spans = kept()
        return {(span["service"], span["name"]) for span in spans} >= STORY and not invariants.broken(spans)

    try:
        until(whole, "the trace of the job", 20)
    except AssertionError:
        spans = kept()
        missing = STORY - {(span["service"], span["name"]) for span in spans}
        raise AssertionError(f"missing: {missing}; without their parent: {invariants.broken(spans)}") from None
    rows = [span["attributes"]["rows"] for span in kept() if span["name"] == "evaluator.ask"]
    assert [span["service"] for span in kept() if not span["parent_id"]] == ["cli"]
    assert len(rows) == 1 and rows[0] > 1 and not [span for span in kept() if span["service"] == "gateway-worker"]
