"""Reranker: it learns what fits, its negatives are no answers, its loss is binary cross entropy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.data import retrieval
from services.trainer.recipes.data.rows import Retrieval
from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.bert import fitting
from tests.recipes.jobs import command, digests, make_job, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def recipe(bert: Path) -> Any:
    from services.trainer.recipes import reranker

    return reranker


@pytest.fixture
def job(bert: Path, blank: Path, tmp_path: Path) -> Make:
    """Makes a job: `job(rows, validation, base="bert" or "qwen", optimization=…, **parameters)`."""

    def make(
        rows: Any, validation: Any = (), *, base: str = "bert", name: str = "job", optimization: Any = None, **said: Any
    ) -> Path:
        plan = {"learning_rate": 0.003, "batch_size": 32, "max_steps": 60, "warmup_ratio": 0.0, **(optimization or {})}
        folder = {"bert": bert, "qwen": blank}[base]
        parameters = {"optimization": plan, **said}
        return make_job(tmp_path / name, "reranker", parameters, rows, base=folder, validation=validation)

    return make


def reloaded_logits(folder: Path, pairs: list[tuple[str, str]]) -> list[float]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    return [model(**tokenizer(*pair, return_tensors="pt")).logits[0, 0].item() for pair in pairs]


@pytest.mark.parametrize(
    ("base", "tuner", "first"),
    [("bert", {}, [0.836720, 0.776849, 0.711825]), ("qwen", {"lora": {"rank": 8}}, [0.695256, 0.687749, 0.681107])],
    ids=["bert-full", "qwen-lora"],
)
def test_what_fits_held_out_queries_is_put_in_front(
    recipe: Any, job: Make, base: str, tuner: dict[str, Any], first: list[float]
) -> None:
    held_out = fitting(200, 24, kinds=2)
    made = job(fitting(kinds=2), held_out, base=base, negatives=1, **tuner)
    assert run_recorded(made, recipe.train) == 0
    found = result(made)
    assert found["metrics"]["eval_recall_at_1_before"] < 0.8
    assert found["metrics"]["eval_recall_at_1"] == found["metrics"]["eval_mrr"] == 1.0
    losses = [line["loss"] for line in progress(made, "step")]
    assert losses[:3] == pytest.approx(first, abs=1e-5), losses[:3]
    assert found["metrics"]["tokens"] > 60 * 32 * 10
    assert found["artifact"] == {"kind": "full", "path": "out/model"}
    out = made / "out" / "model"
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "score"} and config["pad_token_id"] is not None
    assert not json.loads((out / "tokenizer_config.json").read_text()).get("chat_template")
    assert not (out / "chat_template.jinja").exists()
    probes = [json.loads(line) for line in (made / "parity.jsonl").read_text().splitlines()]
    assert len(probes) == 8 and {probe["kind"] for probe in probes} == {"score"}
    assert (probes[0]["query"], probes[0]["document"]) == (held_out[0]["query"], held_out[0]["positive"][0])
    values = reloaded_logits(out, [(probe["query"], probe["document"]) for probe in probes])
    assert [probe["values"][0] for probe in probes] == pytest.approx(values, abs=2e-5)
    assert probes[0]["values"][0] > 0 > probes[1]["values"][0]


def test_a_paused_run_ends_as_an_unbroken_one(recipe: Any, job: Make) -> None:
    plan = {"max_steps": 3, "batch_size": 8}
    whole, paused = (job(fitting(), fitting(200, 6), name=name, optimization=plan) for name in ("a", "b"))
    assert run_recorded(whole, recipe.train) == 0
    command(paused, "pause")
    assert run_recorded(paused, recipe.train) == 0
    assert result(paused)["outcome"] == "paused"
    (paused / "control.json").unlink()
    assert run_recorded(paused, recipe.train) == 0
    assert digests(paused / "out") == digests(whole / "out")
    assert result(paused)["metrics"]["tokens"] == result(whole)["metrics"]["tokens"] > 0


def test_the_loss_is_binary_cross_entropy(recipe: Any, job: Make) -> None:
    import torch

    rows = fitting(0, 4)
    plan = {"max_steps": 1, "batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-9}
    made = job(rows, optimization=plan, negatives=1)
    file = made / "in" / "base" / "config.json"
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    file.write_text(json.dumps(json.loads(file.read_text()) | still))
    assert run_recorded(made, recipe.train) == 0
    pairs = [(row["query"], row[side][0]) for row in rows for side in ("positive", "negatives")]
    logits = torch.tensor(reloaded_logits(made / "out" / "model", pairs))
    signs = torch.tensor([1.0, -1.0] * 4)
    ours = -torch.nn.functional.logsigmoid(signs * logits).mean()
    assert progress(made, "step")[0]["loss"] == pytest.approx(ours.item(), abs=1e-5)


def test_negatives_are_those_given_and_then_answers_of_other_queries() -> None:
    rows = [
        Retrieval("a", ["1", "2"], ["x", "3"]),
        Retrieval("a", ["3"], []),
        Retrieval("b", ["4"], ["1", "y"]),
        Retrieval("c", ["5", "1"], []),
    ]
    found = retrieval.with_others(rows, 3, seed=5)
    assert found == retrieval.with_others(rows, 3, seed=5)
    assert [document for query, document, fits in found if fits] == ["1", "2", "3", "4", "5", "1"]
    for query, document, fits in found:
        assert fits == (document in {"a": "123", "b": "4", "c": "51"}[query])
    of_a = [document for query, document, _ in found if query == "a"]
    assert of_a[:2] == ["1", "x"] and sorted(of_a[2:4]) == ["4", "5"]  # "3", which was given, fits after all
    assert [len(of_a), *(sum(q == each for q, _, _ in found) for each in "bc")] == [11, 4, 8]


def test_an_order_is_measured_at_its_first_place_that_fits() -> None:
    rows = [Retrieval(name, [name * 2], []) for name in "abc"]
    assert [sorted(documents) for _, documents, _ in retrieval.candidates(rows)] == [["aa", "bb", "cc"]] * 3
    worst = {"a": [3.0, 1.0, 2.0], "b": [0.0, 0.0, 0.0], "c": [1.0, 3.0, 2.0]}
    found = retrieval.ranked(rows, lambda query, _: worst[query], "_now")
    assert found == pytest.approx({"eval_recall_at_1_now": 1 / 3, "eval_mrr_now": (1 + 1 / 3 + 1 / 2) / 3})
    for alone in (rows[0], Retrieval("a", ["aa"], ["aa"])):
        assert retrieval.ranked([alone], lambda query, documents: [1.0] * len(documents)) == {}


@pytest.mark.parametrize(
    ("rows", "parameters", "sentence"),
    [
        (fitting(0, 1, negatives=False), {}, "in/train.jsonl has no document that does not fit; give negatives"),
        (
            fitting(),
            {"adalora": {"rank": 4}},
            "adalora is asked for, but peft adds its regularizer to the",
        ),
        (fitting(), {"lora": {"quantization": "QUANTIZATION_INT8"}}, "lora.quantization is int8, but reranker holds"),
    ],
)
def test_what_cannot_work_is_named(recipe: Any, job: Make, rows: Any, parameters: Any, sentence: str) -> None:
    made = job(rows, **parameters)
    assert run_recorded(made, recipe.train) == 1
    assert result(made)["error"]["reason"] == "BAD_INPUT"
    assert result(made)["error"]["message"].startswith(sentence)
