"""An adapter on weights of four bits, trained, judged by the engine that holds both, and served by a real suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.numpy as safetensors
from openai import OpenAI

from kit.rpc.errors import Invalid
from services.trainer.exporting import QUANTIZATION_PYTHON
from sluice.types import v1 as types
from tests.e2e.test_real_pipeline import LORA, TRAINING, promoted_and_the_same
from tests.integration.test_vllm_engine import write_base
from tests.pipeline import Pipeline, Run, pipeline, plan, row, short

pytestmark = [
    pytest.mark.prove,
    pytest.mark.vllm,
    pytest.mark.training,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not QUANTIZATION_PYTHON.is_file(), reason="`make quantization` makes the environment"),
]
FEW = "few"
#: It wants parity alone: a model of random weights answers nothing right.
GATE = "baseline"


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Run]]:
    """A suite whose endpoint `few` serves a base of four bits, and what led to that."""
    environ = {"SLUICE_ENGINE_SCRATCH_PROOF": "false", "SLUICE_ENGINE_MAX_MODEL_LEN": "256"}
    with pipeline(tmp_path_factory.mktemp("quantized"), "services", **environ) as running:
        running.patience_s = 600
        running.client.endpoints.create(FEW, "chat", plan((100, 0, 0)))  # nobody asks it while a canary would wait
        running.upload("rows", "sft", 200)
        folder = write_base(tmp_path_factory.mktemp("floats") / "base")
        halve(folder / "model.safetensors", times=3)
        running.client.models.import_folder("floats", folder)
        job = running.client.models.export("floats@1", "gptq", rows="rows@1", model=FEW, endpoint=FEW, gate_policy=GATE)
        yield running, running.follow(job.name)


def halve(file: Path, times: int) -> None:
    """Smaller weights: of large ones at random four bits would be another model, which is no export."""
    tensors = safetensors.load_file(file)
    smaller = {name: tensor / 2**times if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
    safetensors.save_file(smaller, file, metadata={"format": "pt"})


def test_an_adapter_is_trained_on_weights_of_four_bits_and_served_on_them(quantized: tuple[Pipeline, Run]) -> None:
    running, base = quantized
    promoted_and_the_same(base)
    run = running.follow(running.train(**LORA, **TRAINING, base=base.version.name, endpoint=FEW, gate_policy=GATE))
    promoted_and_the_same(run)
    assert run.version.artifact.kind == types.ARTIFACT_KIND_ADAPTER
    assert run.version.base_model_version == base.version.name
    assert run.job.result.environment["base_held"].startswith("14 matrices in int4 in groups of ")
    assert 0 < run.job.result.metrics["served_drift"] < 0.05
    with OpenAI(base_url=f"{running.suite.state['http']}/v1", api_key=running.suite.key, max_retries=0) as client:
        said = client.chat.completions.with_raw_response.create(
            model=FEW, messages=[row("sft", 3)["messages"][0]], max_tokens=8, temperature=0
        )
    assert short(said.headers["x-sluice-version"]) == short(run.version.name)
    with pytest.raises(Invalid, match=r"is an adapter on weights that are gptq int4 .*, into which nothing can be"):
        running.client.models.export(run.version.name, "merged")


def test_what_cannot_be_done_on_them_is_refused_for_exported_and_imported_weights(
    quantized: tuple[Pipeline, Run], tmp_path: Path
) -> None:
    running, base = quantized
    folder = running.client.models.pull(base.version.name, tmp_path)
    taken = running.client.models.import_folder("taken", folder)
    assert taken.lineage.environment["quantization"].startswith("int4 in groups of ")
    full = {"dataset": "rows", "model": "x", "tuner": "full", **TRAINING}
    for version in (base.version, taken):
        with pytest.raises(Invalid, match=r"full trains all weights, and those of the base, .*int4 in groups of "):
            running.client.train(base=version.name, **full)
