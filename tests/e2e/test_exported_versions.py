"""An adapter written in other forms by a real suite: what becomes a version is judged and served like any, what does
not is fetched with its digests."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from kit.rpc.errors import Denied, Unauthenticated
from kit.rpc.names import id_of
from services.trainer.exporting import QUANTIZATION_PYTHON
from sluice import Client
from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests.e2e.test_real_pipeline import LORA, SHAPE, TRAINING, promoted_and_the_same
from tests.pipeline import ENDPOINT, Pipeline, Run, pipeline, row, short, until

pytestmark = [pytest.mark.prove, pytest.mark.vllm, pytest.mark.training, pytest.mark.timeout(600)]
QUANTIZED = pytest.mark.skipif(not QUANTIZATION_PYTHON.is_file(), reason="`make quantization` makes the environment")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Run]]:
    """A suite of real processes with an adapter that serves, and what led to it."""
    environ = {"SLUICE_ENGINE_SCRATCH_PROOF": "false", "SLUICE_ENGINE_MAX_MODEL_LEN": "256"}
    with pipeline(tmp_path_factory.mktemp("exports"), "services", **environ) as running:
        running.patience_s = 300
        running.create_endpoint()
        running.let_in_by((100, 0, 0))  # nobody asks it here, and a canary would wait for that
        running.client.gate_policies.create("near", limits(log_prob_drift=0.5, size_ratio=0.7))
        running.client.gate_policies.create("exact", limits(log_prob_drift=1e-6))
        text = running.upload("text", "pretrain", 40)
        told = {**SHAPE, **TRAINING, "max_length": 64}
        base = running.client.train(dataset=text, model="base", task_type="pretrain", **told)
        running.upload("rows", "sft", 120)
        running.end_of(base.name)
        running.version_of(base.name)  # that it is judged too is shown elsewhere, so nobody waits for it
        yield running, running.follow(running.train(**LORA, **TRAINING, gate_policy="baseline"))


def limits(**most: float) -> registry.GatePolicy:
    """A policy that wants parity, and figures of the job below limits."""
    criteria = [registry.Criterion(metric=name, at_most=limit) for name, limit in most.items()]
    return registry.GatePolicy(criteria=criteria, min_rows=8, parity_required=True)


def answer(running: Pipeline, version: str) -> tuple[str, str]:
    """Which version answers, and what."""
    with OpenAI(base_url=f"{running.suite.state['http']}/v1", api_key=running.suite.key, max_retries=0) as client:
        said = client.chat.completions.with_raw_response.create(
            model=ENDPOINT, messages=[row("sft", 3)["messages"][0]], max_tokens=8, temperature=0
        )
    assert short(said.headers["x-sluice-version"]) == version
    return version, str(said.parse().choices[0].message.content)


def test_a_merged_adapter_becomes_a_version_that_answers_what_the_adapter_did(
    exported: tuple[Pipeline, Run],
) -> None:
    running, run = exported
    assert run.rollout and run.rollout.state == gateway.ROLLOUT_STATE_PROMOTED, run.version.gate_decision
    before = answer(running, "adapter@1")
    made = running.follow(running.client.models.export("adapter@1", "merged").name)
    promoted_and_the_same(made)
    assert short(made.version.name) == "adapter@2" and made.version.artifact.kind == types.ARTIFACT_KIND_FULL
    assert made.version.lineage.source_model_version == run.version.name and made.version.lineage.recipe == "export"
    assert not made.version.base_model_version and made.version.endpoint == ENDPOINT
    assert made.job.result.metrics["log_prob_drift"] < 1e-4
    assert answer(running, "adapter@2")[1] == before[1]


@QUANTIZED
@pytest.mark.parametrize("form", ["gptq", "awq"])
def test_weights_of_four_bits_are_judged_by_the_engine_that_will_serve_them(
    exported: tuple[Pipeline, Run], form: str
) -> None:
    running, run = exported
    job = running.client.models.export(
        "adapter@1", form, model=f"adapter-{form}", endpoint=f"few-{form}", gate_policy="near"
    )
    made = running.follow(job.name)
    promoted_and_the_same(made)
    reasons = made.version.gate_decision.reasons
    for name, reason in zip(("log_prob_drift", "size_ratio"), reasons, strict=True):
        assert reason.startswith(f"{name} {made.job.result.metrics[name]:.4g} by its job, wanted at most"), reasons
    assert made.version.lineage.source_model_version == run.version.name


@QUANTIZED
def test_what_is_further_from_its_source_than_its_policy_lets_it_stays_out(exported: tuple[Pipeline, Run]) -> None:
    running, _ = exported
    job = running.client.models.export(
        "adapter@1", "gptq", model="adapter-gptq", endpoint="few-gptq", gate_policy="exact"
    )
    made = running.follow(job.name)
    assert made.evaluation.report.parity.passed and made.job.result.metrics["log_prob_drift"] > 1e-6
    decision = made.version.gate_decision
    assert decision.verdict == registry.VERDICT_FAIL and decision.reasons[0].endswith("1e-06: does not hold"), decision
    assert made.version.state == registry.MODEL_VERSION_STATE_REJECTED and made.rollout is None


def test_a_package_becomes_no_version_and_is_fetched_by_who_may(exported: tuple[Pipeline, Run], tmp_path: Path) -> None:
    running, run = exported
    job = running.client.models.export("adapter@1", "gguf", model="package", bits=16)
    ended = running.end_of(job.name)
    assert ended.result.artifact.kind == types.ARTIFACT_KIND_PACKAGE
    folder = running.client.jobs.pull(job.name, tmp_path)
    assert folder == tmp_path / "task-type=sft" / id_of(job.name)
    told = json.loads((folder / "sluice-manifest.json").read_text("utf-8"))
    assert told["files"].keys() == {"model.gguf"} and told["metrics"]["size_ratio"] < 1
    assert (folder / "model.gguf").stat().st_size == told["files"]["model.gguf"]["size_bytes"]
    secret = running.client.keys.create("reads-only", ["auditor"]).secret
    with Client(running.suite.state["address"], secret) as other:
        until(lambda: is_known(other), "the key")
        with pytest.raises(Denied, match="downloader"):
            other.jobs.pull(job.name, tmp_path / "taken")
    pulled = running.client.models.pull("adapter@1", tmp_path)
    assert pulled == tmp_path / "task-type=sft" / id_of(run.job.name)
    assert {file.name for file in pulled.iterdir()} >= {"adapter_config.json", "sluice-manifest.json"}
    assert "package" not in {id_of(each.name) for each in running.client.models.list()}


def is_known(client: Client) -> bool:
    """Whether the trainer has heard of the client's key; it follows the registry's list of keys."""
    try:
        client.jobs.list()
    except Unauthenticated:
        return False
    return True
