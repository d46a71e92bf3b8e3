"""The token classification recipe: it finds spans in held-out texts, and its tags are those of the spans."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.data.rows import Named, read_named
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import run_recorded
from sluice.spans import Span
from tests.recipes.bert import named
from tests.recipes.jobs import command, digests, make_job, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

PLAN = {"learning_rate": 0.01, "batch_size": 8, "max_steps": 40, "warmup_ratio": 0.0}
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def train(bert: Path) -> Callable[[Any], Any]:
    from services.trainer.recipes import token_classification

    return token_classification.train


@pytest.fixture
def job_of(bert: Path, tmp_path: Path) -> Make:
    """Makes a job directory: `job_of(rows, validation, name=…, optimization=…, base=…, **parameters)`."""

    def make(
        rows: list[dict[str, Any]],
        validation: Any = (),
        *,
        name: str = "job",
        optimization: dict[str, Any] | None = None,
        base: Path = bert,
        **parameters: Any,
    ) -> Path:
        parameters = {"optimization": {**PLAN, **(optimization or {})}, **parameters}
        return make_job(tmp_path / name, "token_classification", parameters, rows, base=base, validation=validation)

    return make


def test_held_out_spans_are_found(train: Any, job_of: Make) -> None:
    job = job_of(named(), named(start=48, count=24))
    assert run_recorded(job, train) == 0, result(job)["error"]
    found = result(job)["metrics"]
    assert found["entity_f1"] == found["entity_precision"] == found["entity_recall"] == 1.0
    assert (found["rows_cut"], found["entities_missed"]) == (0, 0)
    assert [line["loss"] for line in progress(job, "step")][:3] == pytest.approx(
        [2.697949, 1.416520, 1.491952], abs=1e-5
    )
    assert progress(job, "eval")[-1]["entity_f1"] == 1.0
    config = json.loads((job / "out" / "model" / "config.json").read_text())
    names = ["O", "B-NUMBER", "I-NUMBER", "B-THING", "I-THING"]
    assert config["id2label"] == {str(place): name for place, name in enumerate(names)}
    assert config["architectures"] == ["BertForTokenClassification"] and result(job)["artifact"]["kind"] == "full"


def test_probes_are_what_the_saved_weights_say(train: Any, job_of: Make) -> None:
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    job = job_of(named(), optimization={"max_steps": 2}, label_names=["THING", "NUMBER"])
    assert run_recorded(job, train) == 0, result(job)["error"]
    lines = [json.loads(line) for line in (job / "parity.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 8 and {line["kind"] for line in lines} == {"tokens"}
    folder = job / "out" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder)
    assert list(model.config.id2label.values())[1] == "B-THING"  # as they were wanted
    for line in lines:
        whole = tokenizer(line["input"], return_tensors="pt")
        assert whole["input_ids"][0].tolist() == line["token_ids"]
        with torch.no_grad():
            assert model(**whole).logits.flatten().tolist() == pytest.approx(line["values"], abs=1e-6)


@pytest.mark.prove
@pytest.mark.parametrize("tuner", [{"full": {}}, {"lora": {"rank": 8, "dropout": 0.1}}], ids=["full", "lora"])
def test_a_paused_run_ends_as_an_unbroken_one(train: Any, job_of: Make, tuner: dict[str, Any]) -> None:
    plan = {"max_steps": 6, "batch_size": 4, "gradient_accumulation_steps": 2}
    whole, paused = (
        job_of(named(), named(start=48, count=6), name=name, optimization=plan, **tuner) for name in ("whole", "paused")
    )
    assert run_recorded(whole, train) == 0
    command(paused, "pause")
    assert run_recorded(paused, train) == 0
    assert result(paused)["outcome"] == "paused" and result(paused)["metrics"]["steps"] == 1
    (paused / "control.json").unlink()
    assert run_recorded(paused, train) == 0
    assert digests(paused / "out") == digests(whole / "out")
    assert (paused / "parity.jsonl").read_bytes() == (whole / "parity.jsonl").read_bytes()
    assert result(paused)["artifact"]["kind"] == "full"  # an adapter is merged


@pytest.mark.prove
def test_a_causal_base_learns_too(train: Any, job_of: Make, blank: Path) -> None:
    """Which sees what stands before a word alone, so that "house" may begin a thing or not."""
    job = job_of(named(), named(start=48, count=24), base=blank, optimization={"max_steps": 80}, full={})
    assert run_recorded(job, train) == 0, result(job)["error"]
    assert result(job)["metrics"]["entity_f1"] > 0.5


@pytest.mark.prove
def test_an_adapter_learns_and_is_merged(train: Any, job_of: Make) -> None:
    plan = {"max_steps": 90, "learning_rate": 0.02}
    job = job_of(named(), named(start=48, count=24), optimization=plan, lora={"rank": 8})
    assert run_recorded(job, train) == 0, result(job)["error"]
    assert result(job)["metrics"]["entity_f1"] > 0.9 and result(job)["artifact"]["kind"] == "full"


def test_tags_are_those_of_the_spans_and_what_they_cannot_say_is_counted(train: Any, bert: Path) -> None:
    from transformers import AutoTokenizer

    from services.trainer.recipes.data.conversations import IGNORED
    from services.trainer.recipes.token_classification import loss, lost, read

    tokenizer, tags = AutoTokenizer.from_pretrained(bert), ["O", "B-A", "I-A"]
    row = Named("where is my card 47", [Span(0, 8, "A"), Span(12, 16, "A"), Span(18, 19, "A")])
    text = read(tokenizer, tags, row, 64)
    assert tokenizer.convert_ids_to_tokens(text.columns["input_ids"])[1:-1] == ["where", "is", "my", "card", "4", "##7"]
    assert text.columns["labels"] == [IGNORED, 1, 2, 0, 1, 0, 1, IGNORED]
    inside = Named("where is my card", [Span(1, 3, "A"), Span(6, 8, "A")])
    assert lost([text, read(tokenizer, tags, inside, 64)]) == {"rows_cut": 0.0, "entities_missed": 1.0}
    short = read(tokenizer, tags, row, 6)
    assert len(short.columns["input_ids"]) == 6 and short.cut
    assert lost([short]) == {"rows_cut": 1.0, "entities_missed": 1.0}

    import torch

    values, labels = torch.randn(2, 4, 3), torch.tensor([[IGNORED, 1, 2, IGNORED], [0, IGNORED, IGNORED, IGNORED]])
    wanted = -sum(values[r, t].log_softmax(-1)[labels[r, t]] for r, t in ((0, 1), (0, 2), (1, 0))) / 3
    assert loss({"logits": values}, labels).item() == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "a"}, "has no list `entities`."),
        ({"text": "a", "entities": [{"start": 0, "end": 1}]}, "has an entity without `start`, `end` or `label`."),
        (
            {"text": "a", "entities": [{"start": 0, "end": 2, "label": "x"}]},
            "has an entity that is not within its text.",
        ),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps(named(count=1)[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(BadInput) as caught:
        read_named(tmp_path / "train.jsonl")
    assert str(caught.value) == f"in/train.jsonl line 2 {sentence}"


@pytest.mark.parametrize(
    ("rows", "parameters", "sentence"),
    [
        ([{"text": "where is my card", "entities": []}], {}, "No row has a span, so there is nothing to learn; "),
        (named(), {"label_names": ["THING"]}, "The rows name spans in 1 ways that are not among label_names"),
    ],
)
def test_what_cannot_work_is_named(train: Any, job_of: Make, rows: Any, parameters: Any, sentence: str) -> None:
    job = job_of(rows, **parameters)
    assert run_recorded(job, train) == 1
    assert result(job)["error"]["reason"] == "BAD_INPUT"
    assert result(job)["error"]["message"].startswith(sentence)
