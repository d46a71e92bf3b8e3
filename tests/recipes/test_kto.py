"""KTO: its loss is the paper's, it learns, and a batch holds what it is compared with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes import losses
from tests.recipes.jobs import command, digests, feedback, progress, result, write_rows

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]
FIRST = [0.5, 0.487394, 0.521061]  # losses of the first steps on `blank`


@pytest.fixture(scope="session")
def kto(blank: Path) -> Any:
    from services.trainer.recipes import kto

    return kto


def test_held_out_good_answers_become_likelier_than_bad_ones(kto: Any, answers_job: Make) -> None:
    plan = {"max_steps": 40, "warmup_ratio": 0.0}
    job = answers_job("kto", feedback(), feedback(start=100, count=24), optimization=plan, full={}, beta=0.5)
    assert run_recorded(job, kto.train) == 0
    found = result(job)["metrics"]
    assert (found["eval_preference_accuracy_before"], found["eval_preference_margin_before"]) == (0.5, 0.0)
    assert found["eval_preference_accuracy"] > 0.95 and found["eval_preference_margin"] > 1
    assert [line["loss"] for line in progress(job, "step")][:3] == pytest.approx(FIRST, abs=1e-5)
    assert result(job)["artifact"]["kind"] == "full"
    assert len((job / "parity.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("knobs", "tuner"),
    [({}, "full"), ({"beta": 0.3, "desirable_weight": 2.0, "undesirable_weight": 0.5}, "lora")],
)
def test_the_loss_is_the_papers(kto: Any, blank: Path, tmp_path: Path, knobs: dict[str, Any], tuner: str) -> None:
    import torch
    from datasets import Dataset

    from services.trainer.recipes.data.pairs import answer
    from services.trainer.recipes.data.rows import read_feedback
    from services.trainer.recipes.models.base_model import load_base
    from services.trainer.recipes.models.tuning import adapter_config

    write_rows(tmp_path / "rows.jsonl", feedback(count=8))
    (tokenizer, model), (_, base) = load_base(blank), load_base(blank)
    rows = read_feedback(tmp_path / "rows.jsonl")
    judged = [(answer(tokenizer, row.prompt, row.completion), row.good) for row in rows]
    arguments = {
        "output_dir": str(tmp_path / "checkpoints"),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
    }
    trainer = kto.Ready(
        model=model,
        args=kto.config(knobs, arguments, max_length=128, once=tuner == "full"),
        train_dataset=Dataset.from_list(kto.columns(judged, 8)),
        processing_class=tokenizer,
        peft_config=adapter_config({tuner: {"rank": 8} if tuner == "lora" else {}}),
    )
    torch.manual_seed(3)
    with torch.no_grad():
        for weights in trainer.model.parameters():
            if weights.requires_grad:
                weights += 0.05 * torch.randn_like(weights)
        said = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))

        def ratios(shift: int) -> torch.Tensor:
            pairs = [(judged[i][0].prompt_ids, judged[i - shift][0].answer_ids) for i in range(8)]
            logs = [[losses.token_logs(m, *pair)[1].sum() for pair in pairs] for m in (trainer.model, base)]
            return torch.tensor(logs[0]) - torch.tensor(logs[1])

        weights = (knobs.get("desirable_weight", 1.0), knobs.get("undesirable_weight", 1.0))
        good = torch.tensor([fine for _, fine in judged])
        ours = losses.kto(ratios(0), good, ratios(1), knobs.get("beta", 0.1), *weights)
    assert said.item() == pytest.approx(ours.item(), abs=2e-6, rel=1e-5)
    assert abs(ours.item() - 0.5) > 1e-4  # the policy is no longer the reference


def test_a_paused_run_ends_as_an_unbroken_one(kto: Any, answers_job: Make) -> None:
    lora = {"rank": 8, "dropout": 0.1}
    whole, paused = (answers_job("kto", feedback(count=20), name=name, lora=lora) for name in ("whole", "paused"))
    assert run_recorded(whole, kto.train) == 0
    command(paused, "pause")
    assert run_recorded(paused, kto.train) == 0
    assert result(paused)["outcome"] == "paused"
    (paused / "control.json").unlink()
    assert run_recorded(paused, kto.train) == 0
    assert digests(paused / "out") == digests(whole / "out")
    assert (paused / "parity.jsonl").read_bytes() == (whole / "parity.jsonl").read_bytes()
    assert result(paused)["metrics"]["final_loss"] == result(whole)["metrics"]["final_loss"]


def test_each_prompt_meets_the_answer_to_another_of_its_batch(kto: Any) -> None:
    from services.trainer.recipes.data.pairs import Answer

    rows = [(Answer([i], [10 + i], ""), True) for i in range(7)]
    met = [row["KL_completion_ids"][0] - 10 for row in kto.columns(rows, 3)]
    assert met == [2, 0, 1, 5, 3, 4, 5]


@pytest.mark.parametrize(
    ("rows", "optimization", "sentence"),
    [
        (feedback(count=4), {"batch_size": 1}, "optimization.batch_size is 1; kto compares the rows of a batch"),
        ([{**feedback(count=1)[0], "label": "yes"}], {}, "in/train.jsonl line 1 has no `label` that is true or false."),
    ],
)
def test_what_cannot_work_is_named(
    kto: Any, answers_job: Make, rows: list[dict[str, Any]], optimization: dict[str, Any], sentence: str
) -> None:
    job = answers_job("kto", rows, optimization=optimization)
    assert run_recorded(job, kto.train) == 1
    assert result(job)["error"]["reason"] == "BAD_INPUT"
    assert result(job)["error"]["message"].startswith(sentence)
