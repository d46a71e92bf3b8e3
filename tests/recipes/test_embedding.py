"""Embedding: it learns what fits, its vectors are what anybody computes from the files, and its loss is InfoNCE."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.recipes.job.jobdir import run_recorded
from tests.recipes.bert import FITS, THINGS, fitting
from tests.recipes.jobs import command, digests, make_job, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]


@pytest.fixture
def recipe(embedding: Any) -> Any:
    return embedding


@pytest.fixture
def job(bert: Path, blank: Path, tmp_path: Path) -> Make:
    """Makes a job: `job(rows, validation, base="bert" or "qwen", optimization=…, **parameters)`."""

    def make(
        rows: Any, validation: Any = (), *, base: str = "bert", name: str = "job", optimization: Any = None, **said: Any
    ) -> Path:
        plan = {"learning_rate": 0.003, "batch_size": 16, "max_steps": 30, "warmup_ratio": 0.0, **(optimization or {})}
        folder = {"bert": bert, "qwen": blank}[base]
        parameters = {"optimization": plan, **said}
        return make_job(tmp_path / name, "embedding", parameters, rows, base=folder, validation=validation)

    return make


def by_hand(folder: Path, text: str, pooling: str, normalized: bool, width: int | None = None) -> Any:
    """The vector of a text by transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype="float32").eval()
    with torch.no_grad():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    vector = {"cls": states[0], "mean": states.mean(0), "lasttoken": states[-1]}[pooling]
    return vector / vector.norm() if normalized else vector


@pytest.mark.parametrize(
    ("base", "pooling", "parameters", "steps", "first"),
    [
        ("bert", "mean", {}, 30, [4.332155, 3.497362, 3.054651]),
        (
            "bert",
            "cls",
            {"mini_batch_size": 4, "matryoshka_sizes": [16, 8], "normalize_embeddings": False},
            60,
            [22.105844, 15.501428, 11.470731],
        ),
        (
            "qwen",
            "lasttoken",
            {"lora": {"rank": 8}, "matryoshka_sizes": [32, 16]},
            30,
            [16.461786, 10.978127, 12.922943],
        ),
    ],
    ids=["bert", "bert-cached-matryoshka", "qwen-lora-matryoshka"],
)
def test_what_fits_held_out_queries_is_found(
    recipe: Any, job: Make, base: str, pooling: str, parameters: dict[str, Any], steps: int, first: list[float]
) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    held_out = fitting(200, 24)
    said = {} if base == "qwen" else {"pooling_method": f"POOLING_METHOD_{pooling.upper()}"}
    made = job(fitting(), held_out, base=base, optimization={"max_steps": steps}, **said, **parameters)
    assert run_recorded(made, recipe.train) == 0
    found = result(made)
    assert found["metrics"]["eval_recall_at_1_before"] < 0.8
    assert found["metrics"]["eval_recall_at_1"] == found["metrics"]["eval_mrr"] == 1.0
    losses = [line["loss"] for line in progress(made, "step")]
    assert losses[:3] == pytest.approx(first, abs=1e-5), losses[:3]
    assert found["metrics"]["tokens"] > 30 * 16 * 15
    assert found["artifact"] == {"kind": "full", "path": "out/model"}
    out = made / "out" / "model"
    assert (out / "modules.json").is_file() and not (out / "chat_template.jinja").exists()
    assert not json.loads((out / "tokenizer_config.json").read_text()).get("chat_template")
    sizes = json.loads((out / "config.json").read_text()).get("matryoshka_dimensions")
    assert sizes == ([32, 16, 8][: 2 + ("mini_batch_size" in parameters)] if "matryoshka_sizes" in parameters else None)

    normalized = parameters.get("normalize_embeddings", True)
    loaded = SentenceTransformer(str(out), device="cpu").eval()
    probes = [json.loads(line) for line in (made / "parity.jsonl").read_text().splitlines()]
    assert [probe["input"] for probe in probes] == [row["query"] for row in held_out[:8]]
    for probe in probes[:3]:
        assert loaded.preprocess([probe["input"]])["input_ids"][0].tolist() == probe["token_ids"]
        vector = by_hand(out, probe["input"], pooling, normalized)
        theirs = loaded.encode(probe["input"], convert_to_tensor=True)
        assert (theirs - vector).abs().max() < 1e-6 * max(1, vector.abs().max())
        assert (torch.tensor(probe["values"]) - vector).abs().max() < 2e-6 * max(1, vector.abs().max())
        assert (abs(vector.norm().item() - 1) < 1e-5) == normalized


def test_a_paused_run_ends_as_an_unbroken_one(recipe: Any, job: Make) -> None:
    plan = {"max_steps": 4, "batch_size": 8, "gradient_accumulation_steps": 2}
    said = {"mini_batch_size": 4, "checkpoint_every_steps": 2}
    whole, paused = (job(fitting(), fitting(200, 6), name=name, optimization=plan, **said) for name in ("a", "b"))
    assert run_recorded(whole, recipe.train) == 0
    command(paused, "pause")
    assert run_recorded(paused, recipe.train) == 0
    assert result(paused)["outcome"] == "paused" and result(paused)["metrics"]["steps"] == 1
    assert (paused / "checkpoints" / "checkpoint-1" / "COMPLETE.json").is_file()
    (paused / "control.json").unlink()
    assert run_recorded(paused, recipe.train) == 0
    assert digests(paused / "out") == digests(whole / "out")
    for name in ("tokens", "final_loss", "eval_loss", "eval_mrr_before"):
        assert result(paused)["metrics"][name] == result(whole)["metrics"][name] > 0
    command(paused, "cancel")
    (whole / "checkpoints").rename(whole / "spent")
    command(whole, "cancel")
    assert run_recorded(whole, recipe.train) == 0
    assert result(whole)["outcome"] == "cancelled" and not list((whole / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize("parameters", [{}, {"mini_batch_size": 2}, {"temperature": 0.2, "matryoshka_sizes": [8]}])
def test_the_loss_is_infonce_without_false_negatives(recipe: Any, job: Make, parameters: dict[str, Any]) -> None:
    """Five queries, of which two have the same answer, and four negatives, one of which fits another query."""
    import torch

    rows = fitting(0, 5)
    made = job(rows, optimization={"max_steps": 1, "batch_size": 5, "learning_rate": 1e-9}, **parameters)
    file = made / "in" / "base" / "config.json"
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    file.write_text(json.dumps(json.loads(file.read_text()) | still))
    assert run_recorded(made, recipe.train) == 0

    def vectors(texts: list[str]) -> Any:
        return torch.stack([by_hand(made / "in" / "base", text, "mean", False) for text in texts])

    queries = vectors([row["query"] for row in rows])
    texts = [row["positive"][0] for row in rows] + [row["negatives"][0] for row in rows]
    documents, total = vectors(texts), 0.0
    for width in (32, *parameters.get("matryoshka_sizes", ())):
        cosines = torch.nn.functional.cosine_similarity(queries[:, None, :width], documents[None, :, :width], dim=2)
        for own, row in enumerate(rows):
            kept = [place for place, text in enumerate(texts) if place == own or text not in row["positive"]]
            scores = cosines[own] / parameters.get("temperature", 0.05)
            total += (torch.logsumexp(scores[kept], 0) - scores[own]).item() / len(rows)
    assert texts.count(FITS[0]) > 1
    assert progress(made, "step")[0]["loss"] == pytest.approx(total, abs=1e-4)


def test_a_base_keeps_its_pooling(recipe: Any, job: Make) -> None:
    made = job(fitting())
    pooling = made / "in" / "base" / "1_Pooling"
    pooling.mkdir()
    from services.trainer.recipes.job.jobdir import JobDir

    for said, mode in (
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
    ):
        (pooling / "config.json").write_text(json.dumps(said))
        assert recipe.load_encoder(JobDir(made), {})[1].pooling_mode == mode
        assert recipe.load_encoder(JobDir(made), {"pooling_method": "POOLING_METHOD_MEAN"})[1].pooling_mode == "mean"


@pytest.mark.parametrize(
    ("rows", "parameters", "sentence"),
    [
        (fitting(), {"matryoshka_sizes": [64, 8]}, "matryoshka_sizes has 64, but the base makes vectors of 32"),
        ([{"query": "a", "positive": [], "negatives": []}], {}, "in/train.jsonl line 1 has no text in `positive`"),
        ([{"positive": ["b"], "negatives": []}], {}, "in/train.jsonl line 1 has no non-empty string `query`."),
        ([{"query": "a", "positive": ["b"]}], {}, "in/train.jsonl line 1 has no list `negatives` of non-empty str"),
        (fitting(), {"max_length": 4}, "All 48 rows are longer than max_length 4; the shortest has "),
    ],
)
def test_what_cannot_work_is_named(recipe: Any, job: Make, rows: Any, parameters: Any, sentence: str) -> None:
    made = job(rows, **parameters)
    assert run_recorded(made, recipe.train) == 1
    assert result(made)["error"]["reason"] == "BAD_INPUT"
    assert result(made)["error"]["message"].startswith(sentence)
    assert THINGS[0] not in result(made)["error"]["message"]
