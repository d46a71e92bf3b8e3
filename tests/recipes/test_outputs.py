"""What finished recipes leave: models that load, losses that fell, parity that a reload confirms."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.trainer.recipes.job.environment import lock_digest
from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.jobs import conversations, digests, make_job, progress, result, texts

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]


def assert_parity_equals_reload(job: Path, base: Path | None) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.trainer.recipes.data.conversations import prompt_ids
    from services.trainer.recipes.learning.parity import greedy

    out = job / "out" / "model"
    tokenizer = AutoTokenizer.from_pretrained(base or out)
    model = AutoModelForCausalLM.from_pretrained(base or out, dtype="float32")
    if base is not None:
        model = PeftModel.from_pretrained(model, out)
    model.eval()
    lines = [json.loads(line) for line in (job / "parity.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) in range(4, 9)
    for line in lines:
        if "messages" in line:
            assert prompt_ids(tokenizer, line["messages"]) == line["prompt_token_ids"]
        else:
            assert tokenizer.encode(line["prompt"]) == line["prompt_token_ids"]
        tokens, logprobs = greedy(model, tokenizer, line["prompt_token_ids"])
        assert tokens == line["completion_token_ids"]
        assert logprobs == pytest.approx(line["logprobs"], abs=1e-5)


def test_pretrain_makes_a_model_that_loads_and_answers_as_its_parity_says(pretrained: Path) -> None:
    found = result(pretrained)
    assert found["outcome"] == "succeeded" and found["error"] is None
    assert found["artifact"] == {"kind": "full", "path": "out/model"}
    assert found["metrics"]["steps"] == 30
    losses = [line["loss"] for line in progress(pretrained, "step")]
    assert len(losses) == 30
    config = json.loads((pretrained / "out" / "model" / "config.json").read_text())
    assert losses[0] == pytest.approx(math.log(config["vocab_size"]), abs=0.05)  # nothing is known yet
    assert losses[-1] < losses[0] / 2
    assert found["metrics"]["eval_loss"] < losses[0] / 2
    assert_parity_equals_reload(pretrained, None)


def test_the_tokenizer_round_trips_any_text(pretrained: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pretrained / "out" / "model")
    for text in ("诊断：无异常。", "naïve café ☕  two  spaces", "12345\n\ttab", "🙂 مرحبا"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_pretrain_continues_from_a_base(recipes: SimpleNamespace, pretrained: Path, tmp_path: Path) -> None:
    parameters = {"max_length": 32, "optimization": {"learning_rate": 0.001, "batch_size": 8, "max_steps": 2}}
    base = pretrained / "out" / "model"
    job = make_job(tmp_path / "job", "pretrain", parameters, texts(), base=base)
    assert run_recorded(job, recipes.pretrain.train) == 0
    assert progress(job, "step")[0]["loss"] < 3.5
    assert (job / "out" / "model" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_lora_learns_and_leaves_an_adapter(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    lora = {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": []}
    job = sft_job(lora=lora, optimization={"max_steps": 40}, validation=conversations(9))
    assert run_recorded(job, recipes.sft.train) == 0
    found = result(job)
    assert found["artifact"] == {"kind": "adapter", "path": "out/model"}
    assert sorted(digests(job / "out" / "model")) == ["adapter_config.json", "adapter_model.safetensors"]
    config = json.loads((job / "out" / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base" and config["r"] == 8
    losses = [line["loss"] for line in progress(job, "step")]
    assert losses[-1] < losses[0] / 2
    assert found["metrics"]["final_loss"] == pytest.approx(sum(losses[-10:]) / 10, abs=1e-5)
    assert found["metrics"]["eval_loss"] == pytest.approx(progress(job, "eval")[-1]["loss"], abs=1e-5)
    assert_parity_equals_reload(job, job / "in" / "base")


def test_full_learns_and_leaves_whole_weights(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    job = sft_job(full={}, optimization={"max_steps": 30})
    assert run_recorded(job, recipes.sft.train) == 0
    assert result(job)["artifact"] == {"kind": "full", "path": "out/model"}
    losses = [line["loss"] for line in progress(job, "step")]
    assert losses[-1] < losses[0] / 2
    assert_parity_equals_reload(job, None)


def test_bfloat16_accumulation_and_epochs(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    small = {"max_steps": 0, "epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 3}
    job = sft_job(lora={"rank": 4}, precision="PRECISION_BFLOAT16", optimization={**small, "schedule": "linear"})
    assert run_recorded(job, recipes.sft.train) == 0
    assert result(job)["metrics"]["steps"] == 2 * 4  # 48 rows / (4 × 3)


def test_the_same_spec_again_leaves_the_same_bytes_and_says_on_what(
    recipes: SimpleNamespace, sft_job: Callable[..., Path]
) -> None:
    jobs = [sft_job(name, full={}, optimization={"max_steps": 3}) for name in ("first", "again")]
    assert [run_recorded(job, recipes.sft.train) for job in jobs] == [0, 0]
    first, again = map(result, jobs)
    assert digests(jobs[0] / "out") == digests(jobs[1] / "out")
    assert [line["loss"] for line in progress(jobs[0], "step")] == [line["loss"] for line in progress(jobs[1], "step")]
    assert (first["settings"], first["packages"]) == (again["settings"], again["packages"])
    told = {"learning_rate": "0.01", "max_steps": "3", "lr_scheduler_type": '"cosine"', "max_length": "128"}
    assert first["settings"].items() >= {**told, "packing": "false", "optim": '"adamw_torch_fused"'}.items()
    about = first["environment"]
    assert about == {**again["environment"], "pid": about["pid"]}
    template = (jobs[0] / "in" / "base" / "chat_template.jinja").read_bytes()
    assert about["template"] == "sha256:" + hashlib.sha256(template).hexdigest()
    assert about["lock"] == lock_digest(first["packages"]) and about["accelerators"]
    metrics = first["metrics"]
    phases = [metrics[f"peak_rss_mb_{phase}"] for phase in ("import", "load", "train", "save")]
    assert metrics["peak_rss_mb"] == max(phases)
    assert "energy_j" not in metrics or metrics["energy_j"] > 0


def test_no_output_names_the_machine(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    job = sft_job(full={}, optimization={"max_steps": 2})
    assert run_recorded(job, recipes.sft.train) == 0
    left = {
        **digests(job / "out"),
        "r": (job / "result.json").read_bytes(),
        "p": (job / "parity.jsonl").read_bytes(),
    }
    assert [name for name, content in left.items() if str(job.parent).encode() in content] == []
