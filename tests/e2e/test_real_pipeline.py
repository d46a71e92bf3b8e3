"""The life of a model with nothing made up: real recipes train it, and a real vLLM is asked and serves."""

import pytest
from openai import OpenAI

from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from tests import invariants
from tests.pipeline import ENDPOINT, pipeline, row, short

SHAPE = {"hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300, "max_position_embeddings": 256}
TRAINING = {"max_steps": 12, "batch_size": 8, "learning_rate": 3e-3}
LORA = {"lora_rank": 8, "lora_alpha": 16, "max_length": 128}


@pytest.mark.vllm
@pytest.mark.training
@pytest.mark.timeout(600)
def test_what_was_trained_is_what_is_judged_and_served(tmp_path):
    # One vLLM: an engine of its own for the first load of an adapter is proven in tests/integration.
    environ = {"SLUICE_ENGINE_SCRATCH_PROOF": "false", "SLUICE_ENGINE_MAX_MODEL_LEN": "256"}
    with pipeline(tmp_path, "services", **environ) as running:
        running.patience_s = 240
        running.create_endpoint()
        base = running.base(300, **SHAPE, **TRAINING, max_length=64)
        assert base.rollout and base.rollout.state == gateway.ROLLOUT_STATE_PROMOTED, base.version.gate_decision
        with running.traffic(threads=1) as seen:
            # A toy learns nothing in twelve steps, so it is only asked to be what was trained.
            run = running.follow(running.train(**LORA, **TRAINING, gate_policy="baseline"))
        assert run.version.gate_decision.verdict == registry.VERDICT_PASS, run.version.gate_decision.reasons
        assert run.rollout and run.rollout.state == gateway.ROLLOUT_STATE_PROMOTED, run.rollout
        for each in (base, run):
            parity = each.evaluation.report.parity
            assert parity.passed and parity.prompts == parity.equal_prompts > 0, parity
        assert not seen.failures and {"base@1", "adapter@1"} <= set(seen.answers)
        message = row("sft", 3)["messages"][0]
        with OpenAI(base_url=f"{running.suite.state['http']}/v1", api_key=running.suite.key, max_retries=0) as client:
            pieces = client.chat.completions.with_raw_response.create(
                model=ENDPOINT, messages=[message], max_tokens=8, temperature=0, stream=True
            )
            assert short(pieces.headers["x-sluice-version"]) == "adapter@1"
            assert sum(1 for piece in pieces.parse() if piece.choices) >= 1
        invariants.told_in_order(run, running.client.events().list(limit=0))
        invariants.hold(running)
