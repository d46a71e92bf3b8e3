"""DPO, ORPO, CPO and SimPO: their losses are the papers', they learn, and what they are told is what happens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.data.rows import read_preferences
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes import losses
from tests.recipes.jobs import command, digests, preferences, progress, result, write_rows

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]
LORA = {"rank": 8, "dropout": 0.1}  # dropout, so that the random state matters too
#: For each method what it is told, and the losses of its first steps on `blank`.
LEARNED: dict[str, tuple[dict[str, Any], list[float]]] = {
    "dpo": ({"lora": {"rank": 8}, "beta": 0.5}, [0.693147, 0.705798, 0.698408]),
    "orpo": ({"full": {}, "beta": 4.0}, [8.599794, 8.479493, 8.001239]),
    "cpo": ({"full": {}, "beta": 0.5, "likelihood_weight": 0.0}, [0.867640, 1.376411, 1.251984]),
    "simpo": ({"lora": {"rank": 8}, "gamma": 0.5}, [1.060959, 0.960402, 0.933113]),
}


@pytest.fixture(scope="session")
def train(blank: Path) -> Callable[[Any], Any]:
    from services.trainer.recipes import preference

    return preference.train


@pytest.mark.parametrize("method", LEARNED)
def test_held_out_answers_come_to_be_preferred(train: Any, answers_job: Make, method: str) -> None:
    parameters, first = LEARNED[method]
    plan = {"max_steps": 30, "warmup_ratio": 0.0}
    job = answers_job(method, preferences(), preferences(start=100, count=24), optimization=plan, **parameters)
    assert run_recorded(job, train) == 0
    found = result(job)["metrics"]
    assert found["eval_preference_accuracy_before"] < 0.8
    assert found["eval_preference_accuracy"] == 1.0
    assert found["eval_preference_margin"] > found["eval_preference_margin_before"] + 0.5
    assert found["tokens"] > 30 * 16 * 20  # 30 steps of 8 pairs
    assert [line["loss"] for line in progress(job, "step")][:3] == pytest.approx(first, abs=1e-5)
    assert result(job)["artifact"]["kind"] == ("adapter" if "lora" in parameters else "full")
    assert len((job / "parity.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("method", "knobs", "tuner"),
    [
        ("dpo", {"beta": 0.3}, "full"),
        ("dpo", {"label_smoothing": 0.2}, "full"),
        ("dpo", {}, "lora"),
        ("orpo", {"beta": 0.3}, "full"),
        ("cpo", {}, "full"),
        ("cpo", {"beta": 0.3, "likelihood_weight": 0.5}, "lora"),
        ("simpo", {}, "full"),
        ("simpo", {"beta": 1.5, "gamma": 0.3}, "lora"),
    ],
)
def test_the_loss_is_the_papers(blank: Path, tmp_path: Path, method: str, knobs: dict[str, Any], tuner: str) -> None:
    import torch

    from services.trainer.recipes.data.pairs import pair
    from services.trainer.recipes.data.rows import read_preferences
    from services.trainer.recipes.models.base_model import load_base

    write_rows(tmp_path / "rows.jsonl", preferences(count=8))
    tokenizer, base = load_base(blank)
    pairs = [pair(tokenizer, row) for row in read_preferences(tmp_path / "rows.jsonl")]
    trainer = moved_trainer(blank, tmp_path, method, knobs, tuner, pairs)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    with torch.no_grad():
        said = trainer.compute_loss(trainer.model, batch)
        asked, chosen = zip(
            *(losses.token_logs(trainer.model, p.chosen.prompt_ids, p.chosen.answer_ids) for p in pairs), strict=True
        )
        rejected = [losses.token_logs(trainer.model, p.chosen.prompt_ids, p.rejected.answer_ids)[1] for p in pairs]
        base_chosen, base_rejected = (
            torch.stack([losses.token_logs(base, a.prompt_ids, a.answer_ids)[1].sum() for a in answers])
            for answers in ([p.chosen for p in pairs], [p.rejected for p in pairs])
        )
    total, other = (torch.stack([logs.sum() for logs in side]) for side in (chosen, rejected))
    mean, mean_other = (torch.stack([logs.mean() for logs in side]) for side in (chosen, rejected))
    ours = {
        "dpo": lambda: losses.dpo(
            total - base_chosen, other - base_rejected, knobs.get("beta", 0.1), knobs.get("label_smoothing", 0.0)
        ),
        "orpo": lambda: losses.orpo(mean, mean_other, torch.cat([*asked, *chosen]).mean(), knobs.get("beta", 0.1)),
        "cpo": lambda: losses.cpo(
            total, other, torch.cat(chosen).mean(), knobs.get("beta", 0.1), knobs.get("likelihood_weight", 1.0)
        ),
        "simpo": lambda: losses.simpo(mean, mean_other, knobs.get("beta", 2.0), knobs.get("gamma", 1.0)),
    }[method]()
    assert said.item() == pytest.approx(ours.item(), abs=2e-6, rel=1e-5)
    if method == "dpo":
        assert abs(said.item() - 0.693147) > 1e-4  # the policy is no longer the reference


def moved_trainer(blank: Path, folder: Path, method: str, knobs: dict[str, Any], tuner: str, pairs: list[Any]) -> Any:
    """The recipe's trainer of a method, its policy moved away from the base."""
    import torch
    from datasets import Dataset

    from services.trainer.recipes import preference
    from services.trainer.recipes.models.base_model import load_base
    from services.trainer.recipes.models.tuning import adapter_config

    tokenizer, model = load_base(blank)
    arguments = {
        "output_dir": str(folder / "checkpoints"),
        "max_steps": 1,
        "per_device_train_batch_size": 4,  # fewer than rows: the reference of an adapter is asked as it trains
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
    }
    trainer = preference.METHODS[method](
        knobs,
        arguments,
        model=model,
        train_dataset=Dataset.from_list([each.columns for each in pairs]),
        eval_dataset=None,
        processing_class=tokenizer,
        peft_config=adapter_config({tuner: LORA if tuner == "lora" else {}}),
        callbacks=[],
    )
    # The base's dropout is off, the adapter's is as asked.
    assert {m.p for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout)} <= {LORA["dropout"]}
    trainer.model.eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for weights in trainer.model.parameters():
            if weights.requires_grad:
                weights += 0.05 * torch.randn_like(weights)
    return trainer


def test_a_paused_run_ends_as_an_unbroken_one(train: Any, answers_job: Make) -> None:
    plan = {"max_steps": 4, "batch_size": 4, "gradient_accumulation_steps": 2}
    whole, paused = (
        answers_job("dpo", preferences(), preferences(start=100, count=6), name=name, optimization=plan, lora=LORA)
        for name in ("whole", "paused")
    )
    assert run_recorded(whole, train) == 0
    command(paused, "pause")
    assert run_recorded(paused, train) == 0
    assert result(paused)["outcome"] == "paused" and result(paused)["metrics"]["steps"] == 1
    (paused / "control.json").unlink()
    assert run_recorded(paused, train) == 0
    assert digests(paused / "out") == digests(whole / "out")
    assert (paused / "parity.jsonl").read_bytes() == (whole / "parity.jsonl").read_bytes()
    measured = ("tokens_per_s", "first_step_s", "wall_s", "peak_")
    first, second = (
        {name: value for name, value in result(job)["metrics"].items() if not name.startswith(measured)}
        for job in (whole, paused)
    )
    assert first == second and first["tokens"] > 0


def test_the_recipe_runs_as_a_process(answers_job: Make) -> None:
    long = {**preferences(count=1)[0], "prompt": [{"role": "user", "content": "x y " * 100}]}
    job = answers_job("orpo", [*preferences(), long], optimization={"max_steps": 2}, full={})
    ended = subprocess.run(
        [sys.executable, "-m", "services.trainer.recipes.preference", str(job)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = result(job)
    assert found["outcome"] == "succeeded" and found["metrics"]["rows_dropped"] == 1
    assert "eval_preference_accuracy" not in found["metrics"]  # nothing was held out
    assert b"experimental" not in ended.stderr


def test_batches_hold_our_tokens_and_count_the_answers(blank: Path) -> None:
    from transformers import AutoTokenizer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from services.trainer.recipes.data.pairs import check_counted, pair
    from services.trainer.recipes.data.rows import Preference

    tokenizer = AutoTokenizer.from_pretrained(blank)
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "my card?"}]
    row = Preference(prompt, {"role": "assistant", "content": "好的 yes"}, {"role": "assistant", "content": "no"})
    made = pair(tokenizer, row)
    assert tokenizer.decode(made.chosen.prompt_ids).endswith("my card?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(made.chosen.answer_ids) == "好的 yes<|im_end|>"
    assert tokenizer.decode(made.rejected.answer_ids) == "no<|im_end|>"
    batch = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)([made.columns])
    check_counted(tokenizer, batch, [made.chosen, made.rejected])
    batch["completion_mask"][1, 2] = 1
    with pytest.raises(BadInput, match="other tokens than the answers"):
        check_counted(tokenizer, batch, [made.chosen, made.rejected])

    # A template that marks nothing, as most published ones: what follows the end of the turn counts too.
    marked = tokenizer.chat_template
    tokenizer.chat_template = marked.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    assert tokenizer.decode(pair(tokenizer, row).rejected.answer_ids) == "no<|im_end|>\n"

    # A template that says something else once there is an answer.
    tokenizer.chat_template = "{{ messages | length }}" + marked
    with pytest.raises(BadInput, match="changes the prompt once it has an answer"):
        pair(tokenizer, row)


def said(role: str, content: str = "account 4711") -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"chosen": said("assistant"), "rejected": said("assistant")}, "has no list `prompt`."),
        ({"prompt": said("user"), "chosen": said("assistant")}, "has no list `rejected`."),
        (
            {"prompt": said("assistant"), "chosen": said("assistant"), "rejected": said("assistant")},
            "has a `prompt` that ends with an answer; answers have fields of their own.",
        ),
        (
            {"prompt": said("user"), "chosen": said("user") + said("assistant"), "rejected": said("assistant")},
            "has a `chosen` that is not one non-empty message of the assistant.",
        ),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(preferences(count=1)[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(BadInput) as caught:
        read_preferences(tmp_path / "train.jsonl")
    assert str(caught.value) == f"in/train.jsonl line 2 {sentence}"


@pytest.mark.parametrize(
    ("recipe", "parameters", "sentence"),
    [
        ("sft", {}, "spec.json asks for the recipe 'sft'; this is dpo, orpo, cpo, simpo."),
        ("dpo", {"max_length": 8}, "All 48 rows are longer than max_length 8; the shortest has "),
        ("dpo", {"lora": {"rank": 4, "target_modules": ["lm_head"]}}, "target_modules names lm_head, whose adapter"),
    ],
)
def test_what_cannot_work_is_named(
    train: Any, answers_job: Make, recipe: str, parameters: dict[str, Any], sentence: str
) -> None:
    job = answers_job(recipe, preferences(), **parameters)
    assert run_recorded(job, train) == 1
    assert result(job)["error"]["reason"] == "BAD_INPUT"
    assert result(job)["error"]["message"].startswith(sentence)
