"""Runs that must fail, and the one sentence each leaves; the loss that must count answers only."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.trainer.recipes.data.rows import read_conversations
from services.trainer.recipes.job.failures import BadInput, explain
from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.jobs import conversations, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

SECRET = "account 4711"


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_a_loss_that_is_no_number_ends_as_diverged(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    job = sft_job(full={}, optimization={"learning_rate": 1e30, "warmup_ratio": 0.0, "schedule": "constant"})
    assert run_recorded(job, recipes.sft.train) == 1
    found = result(job)
    assert found["outcome"] == "failed" and found["error"]["reason"] == "DIVERGED"
    assert "lower learning_rate" in found["error"]["message"]
    assert not (job / "out").exists() and not list((job / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"messages": [', "in/train.jsonl line 2 is not JSON; each line must be one object."),
        ("[]", "in/train.jsonl line 2 has no list `messages`."),
        (
            json.dumps({"messages": [turn("user", SECRET)]}),
            "in/train.jsonl line 2 does not end with an answer: the last message must be a non-empty assistant one.",
        ),
        (
            json.dumps({"messages": [turn("robot", SECRET)]}),
            "in/train.jsonl line 2 has a message whose role is not system, user or assistant.",
        ),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(conversations(1)[0]) + "\n" + line + "\n")
    with pytest.raises(BadInput) as caught:
        read_conversations(tmp_path / "train.jsonl")
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"max_length": 8}, "All 48 rows are longer than max_length 8; the shortest has "),
        ({"lora": {"target_modules": ["w_pack"]}}, "The base model has no module 'w_pack'"),
        ({"precision": "int4"}, "precision is 'int4'; it must be float32 or bfloat16."),
        ({"optimization": {"speed": 9}}, "optimization has no field 'speed'"),
    ],
)
def test_parameters_that_cannot_work_are_named(
    recipes: SimpleNamespace, sft_job: Callable[..., Path], parameters: dict, sentence: str
) -> None:
    job = sft_job(**parameters)
    assert run_recorded(job, recipes.sft.train) == 1
    assert result(job)["error"]["reason"] == "BAD_INPUT"
    assert result(job)["error"]["message"].startswith(sentence)


def test_a_folder_that_is_no_model_is_refused(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    job = sft_job()
    (job / "in" / "base" / "config.json").unlink()
    assert run_recorded(job, recipes.sft.train) == 1
    assert result(job)["error"]["message"].startswith("in/base is not a Hugging Face model folder")


def test_foreign_errors_do_not_leak_their_text() -> None:
    assert SECRET not in explain(KeyError(SECRET)).message
    assert explain(MemoryError()).reason == "OUT_OF_MEMORY"
    assert explain(RuntimeError("DefaultCPUAllocator: can't allocate memory")).reason == "OUT_OF_MEMORY"


def test_rows_that_do_not_fit_are_dropped_and_counted(recipes: SimpleNamespace, sft_job: Callable[..., Path]) -> None:
    long = {"messages": [turn("user", "x y " * 100), turn("assistant", "card_lost")]}
    job = sft_job(rows=[*conversations(), long], optimization={"max_steps": 2})
    assert run_recorded(job, recipes.sft.train) == 0
    assert result(job)["metrics"]["rows_dropped"] == 1


def test_the_loss_counts_the_answers_and_their_end_only(pretrained: Path) -> None:
    from transformers import AutoTokenizer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from services.trainer.recipes.data.conversations import IGNORED, check_answers_only, tokenize

    tokenizer = AutoTokenizer.from_pretrained(pretrained / "out" / "model")
    talk = [
        turn("system", "Be brief."),
        turn("user", "hello"),
        turn("assistant", "好的 yes"),
        turn("user", "my card?"),
        turn("assistant", "card_lost"),
    ]

    def counted(messages: list[dict[str, str]]) -> str:
        return tokenizer.decode([i for i in tokenize(tokenizer, messages).labels if i != IGNORED])

    assert counted(talk) == "好的 yes<|im_end|>card_lost<|im_end|>"
    collate = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    batch = collate([asdict(tokenize(tokenizer, m)) for m in (talk, talk[:3])])
    check_answers_only(tokenizer, batch, [talk, talk[:3]])
    batch["labels"][0, 1] = batch["input_ids"][0, 1]
    with pytest.raises(BadInput, match="other tokens than the answers"):
        check_answers_only(tokenizer, batch, [talk, talk[:3]])

    # A template that marks nothing, as most published ones: the last answer counts.
    marked = tokenizer.chat_template
    tokenizer.chat_template = marked.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    assert counted(talk) == "card_lost<|im_end|>\n"


@pytest.mark.parametrize(
    ("error", "traced"), [(BadInput("hidden_size 7 must be even."), False), (ValueError(SECRET), True)]
)
def test_the_log_has_a_traceback_only_of_what_nobody_explains(tmp_path: Path, capsys, error, traced: bool) -> None:
    def train(job: object) -> None:
        raise error

    assert run_recorded(tmp_path, train) == 1
    log = capsys.readouterr().err
    assert ("Traceback" in log) == traced
    assert traced or log == "error: hidden_size 7 must be even.\n"
    assert SECRET not in result(tmp_path)["error"]["message"]
