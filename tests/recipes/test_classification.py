"""Classification: it learns, what it is told of classes is what it saves, and its grades are the evaluator's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.evaluator.metrics.labels import MacroF1, MicroF1, subset_accuracy
from services.trainer.recipes.data.rows import Classified
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.bert import classified, several
from tests.recipes.jobs import LABELS, command, digests, make_job, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def recipe(bert: Path) -> Any:
    from services.trainer.recipes import sequence_classification

    return sequence_classification


@pytest.fixture
def job(bert: Path, blank: Path, tmp_path: Path) -> Make:
    """Makes a job: `job(rows, validation, base="bert" or "qwen", optimization=…, **parameters)`."""

    def make(
        rows: Any, validation: Any = (), *, base: str = "bert", name: str = "job", optimization: Any = None, **said: Any
    ) -> Path:
        plan = {"learning_rate": 0.003, "batch_size": 16, "max_steps": 30, "warmup_ratio": 0.0, **(optimization or {})}
        folder = {"bert": bert, "qwen": blank}[base]
        parameters = {"optimization": plan, **said}
        return make_job(
            tmp_path / name, "sequence_classification", parameters, rows, base=folder, validation=validation
        )

    return make


def config_of(job: Path) -> dict[str, Any]:
    return json.loads((job / "out" / "model" / "config.json").read_text())


def reloaded_logits(job: Path, texts: list[str]) -> list[list[float]]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job / "out" / "model")
    model = AutoModelForSequenceClassification.from_pretrained(job / "out" / "model", dtype="float32").eval()
    return [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]


@pytest.mark.parametrize(
    ("base", "tuner", "first"),
    [("bert", {}, [1.195639, 1.159451, 0.990262]), ("qwen", {"lora": {"rank": 8}}, [1.076055, 1.021883, 0.950400])],
    ids=["bert-full", "qwen-lora"],
)
def test_held_out_texts_are_told_apart(recipe: Any, job: Make, base: str, tuner: Any, first: list[float]) -> None:
    held_out = classified(200, 30)
    made = job(classified(), held_out, base=base, checkpoint_every_steps=10, **tuner)
    assert run_recorded(made, recipe.train) == 0
    found = result(made)
    assert found["metrics"]["accuracy"] == found["metrics"]["macro_f1"] == found["metrics"]["micro_f1"] == 1.0
    losses = [line["loss"] for line in progress(made, "step")]
    assert losses[:3] == pytest.approx(first, abs=1e-5), losses[:3]
    assert found["metrics"]["tokens"] > 30 * 16 * 5
    graded = [line for line in progress(made, "eval") if "confusion" in line]
    assert [line["step"] for line in graded][:2] == [10, 20]
    assert graded[-1]["confusion"] == [[10, 0, 0], [0, 10, 0], [0, 0, 10]]
    assert found["environment"]["confusion"] == str(graded[-1]["confusion"])
    assert found["artifact"] == {"kind": "full", "path": "out/model"}
    config = config_of(made)
    assert config["id2label"] == {str(i): name for i, name in enumerate(sorted(LABELS))}
    assert config["problem_type"] == "single_label_classification"
    assert config["pad_token_id"] is not None
    probes = [json.loads(line) for line in (made / "parity.jsonl").read_text().splitlines()]
    assert [probe["input"] for probe in probes] == [row["text"] for row in held_out[:8]]
    for probe, values in zip(probes, reloaded_logits(made, [probe["input"] for probe in probes]), strict=True):
        assert probe["kind"] == "logits" and probe["values"] == pytest.approx(values, abs=1e-5)


def test_a_text_may_have_several_labels_or_none(recipe: Any, job: Make) -> None:
    plan = {"max_steps": 60, "learning_rate": 0.005, "batch_size": 32}
    made = job(several(100, 160), several(300, 24), optimization=plan, balance_classes=True)
    assert run_recorded(made, recipe.train) == 0
    found = result(made)["metrics"]
    assert found["accuracy"] > 0.9 and found["micro_f1"] > 0.95
    assert config_of(made)["problem_type"] == "multi_label_classification"
    assert all(sum(map(sum, each)) == 24 for each in progress(made, "eval")[-1]["confusion"])


def test_a_paused_run_ends_as_an_unbroken_one(recipe: Any, job: Make) -> None:
    plan = {"max_steps": 4, "batch_size": 8, "gradient_accumulation_steps": 2}
    whole, paused = (job(classified(), classified(200, 6), name=name, optimization=plan) for name in ("a", "b"))
    assert run_recorded(whole, recipe.train) == 0
    command(paused, "pause")
    assert run_recorded(paused, recipe.train) == 0
    assert result(paused)["outcome"] == "paused" and result(paused)["metrics"]["steps"] == 1
    (paused / "control.json").unlink()
    assert run_recorded(paused, recipe.train) == 0
    assert digests(paused / "out") == digests(whole / "out")
    for name in ("tokens", "final_loss", "eval_loss"):
        assert result(paused)["metrics"][name] == result(whole)["metrics"][name] > 0


@pytest.mark.parametrize("parameters", [{}, {"balance_classes": True}, {"multi_label": True, "balance_classes": True}])
def test_the_loss_is_cross_entropy(recipe: Any, job: Make, parameters: dict[str, Any]) -> None:
    """Weights, summed and divided by hand; in two parts of a batch, which come to the same."""
    import torch

    rows = [*classified(0, 2), *(classified(1, 1) * 4)]  # one card_lost, five loan_question
    plan = {"max_steps": 1, "batch_size": 3, "gradient_accumulation_steps": 2, "learning_rate": 1e-9}
    made = job(rows, optimization=plan, label_names=["loan_question", "card_lost"], full={}, **parameters)
    weights = made / "in" / "base" / "config.json"
    config = json.loads(weights.read_text()) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    weights.write_text(json.dumps(config))
    assert run_recorded(made, recipe.train) == 0
    logits = torch.tensor(reloaded_logits(made, [row["text"] for row in rows]))
    loan = torch.tensor([row["label"] == ["loan_question"] for row in rows])
    share = torch.where(loan, 5 / 6, 1 / 6)
    if parameters.get("multi_label"):
        right, wrong = torch.where(loan, 0, 1), torch.where(loan, 1, 0)
        here, there = (logits.gather(1, which[:, None])[:, 0] for which in (right, wrong))
        ours = -(here.sigmoid().log() / share + (1 - there.sigmoid()).log()).sum() / 12
    else:
        chosen = logits.log_softmax(1).gather(1, torch.where(loan, 0, 1)[:, None])[:, 0]
        ours = -(chosen / (2 * share) if parameters else chosen).mean()
    assert progress(made, "step")[0]["loss"] == pytest.approx(ours.item(), abs=1e-5)


@pytest.mark.parametrize("many", [False, True])
def test_grades_are_the_evaluators(recipe: Any, many: bool) -> None:
    import numpy
    from transformers import EvalPrediction

    random = numpy.random.default_rng(3)
    values = random.normal(size=(40, 5))
    values[:, 4] = -9  # never told, and below never there
    there = random.integers(0, 2, (40, 5)) if many else numpy.eye(5, dtype=int)[random.integers(0, 4, 40)]
    there[:, 4] = 0
    told = values > 0 if many else numpy.eye(5)[values.argmax(1)] > 0
    targets = there.astype("float32") if many else there.argmax(1)
    found = recipe.grades(recipe.Classes(list("abcde"), many), EvalPrediction(predictions=values, label_ids=targets))
    answers, references = ([json.dumps([c for c, yes in zip("abcde", row, strict=True) if yes]) for row in rows]
                           for rows in (told, there))  # fmt: skip
    for name, metric in (("micro_f1", MicroF1()), ("macro_f1", MacroF1(tuple("abcde")))):
        rows = [metric.measure(answer, reference) for answer, reference in zip(answers, references, strict=True)]
        assert found[name] == pytest.approx(metric.aggregate([sum(figures) for figures in zip(*rows, strict=True)]))
    assert found["accuracy"] == pytest.approx(numpy.mean(list(map(subset_accuracy, answers, references))))
    if many:
        pairs = [[(there[:, c] == i) & (told[:, c] == j) for i in (0, 1) for j in (0, 1)] for c in range(5)]
        matrix = numpy.sum(pairs, axis=2).reshape(5, 2, 2)
    else:
        matrix = numpy.array([[numpy.sum(there[:, i] & told[:, j]) for j in range(5)] for i in range(5)])
    assert found["confusion"] == matrix.tolist()


@pytest.mark.parametrize(
    ("rows", "parameters", "sentence"),
    [
        (
            classified(),
            {"label_names": ["card_lost", "loan_question"]},
            "in/train.jsonl line 3 has a label that is not",
        ),
        (several(), {"multi_label": False}, "in/train.jsonl line 1 has 0 labels and not one; set multi_label"),
        (classified(0, 1), {}, "There are 1 classes; give rows of two at least, or label_names."),
        ([{"text": "a", "label": "b"}], {}, "in/train.jsonl line 1 has no list `label` of non-empty strings."),
        (classified(), {"max_length": 3}, "All 48 rows are longer than max_length 3; the shortest has "),
        (classified(), {"lora": {"quantization": "QUANTIZATION_NF4"}}, "lora.quantization is nf4, but sequence_class"),
    ],
)
def test_what_cannot_work_is_named(recipe: Any, job: Make, rows: Any, parameters: Any, sentence: str) -> None:
    made = job(rows, **parameters)
    assert run_recorded(made, recipe.train) == 1
    assert result(made)["error"]["reason"] == "BAD_INPUT"
    assert result(made)["error"]["message"].startswith(sentence)


def test_a_base_without_such_a_head_is_named(bert: Path, tmp_path: Path) -> None:
    from services.trainer.recipes.models.encoders import load_classifier, load_tokenizer

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(BadInput, match="no tokenizer that can be loaded"):
        load_tokenizer(tmp_path)
    with pytest.raises(BadInput, match="cannot be loaded as a text model with a head"):
        load_classifier(tmp_path, ["a", "b"])


def test_what_pads_ends_no_text(recipe: Any, blank: Path) -> None:
    from services.trainer.recipes.models.encoders import choose_pad, load_classifier, load_tokenizer

    tokenizer, model = load_tokenizer(blank), load_classifier(blank, ["a", "b"])
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    choose_pad(tokenizer, model, [end])
    assert tokenizer.pad_token_id == model.config.pad_token_id == pad
    choose_pad(tokenizer, model, [pad])
    assert tokenizer.pad_token_id == model.config.pad_token_id == end
    with pytest.raises(BadInput, match="no token to pad with"):
        choose_pad(tokenizer, model, tokenizer.all_special_ids)


def test_classes_are_those_that_are_named(recipe: Any) -> None:
    rows = [Classified("x", ["b"], "line 1"), Classified("y", ["a"], "line 2")]
    assert recipe.Classes.of(rows, {}) == recipe.Classes(["a", "b"], False)
    assert recipe.Classes.of(rows, {"label_names": ["b", "a"]}).target(rows[0]) == 0
    assert recipe.Classes.of(rows, {"multi_label": True}).target(rows[1]) == [1.0, 0.0]
    assert recipe.Classes.of([Classified("x", [], "line 1"), *rows], {}).several
