"""Classes of images together with texts: what a batch holds, that neither alone would tell, and what is refused.

Each run is a process of its own: what a recipe hides from the libraries is hidden for good, and this one needs
torchvision.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sluice.fusion import HEAD, WEIGHTS
from tests.dual import write_clip
from tests.recipes.jobs import command, digests, make_job, progress, result, write_rows
from tests.seeing import staged, write_qwen2_vl

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

SEES = {"train_vision_tower": True, "train_projector": True}
PLAN = {"learning_rate": 3e-3, "batch_size": 8, "max_steps": 3}
WRITE = {"early": write_qwen2_vl, "late": write_clip}
FIRST_LOSSES = [0.97065, 1.68260, 0.74488]
WORDS = ("is it a one", "is it a zero")


def labeled(assets: Path, start: int, count: int) -> list[dict[str, Any]]:
    """Ones and zeros, and of each a question that is right or wrong: neither image nor text alone tells the label."""
    rows = []
    for place in range(count):
        digit, word = place % 2, place // 2 % 2
        (row,) = staged(assets, start + 10 * place + digit, 1)
        label = "yes" if digit != word else "no"
        rows.append({"text": f"<image>{WORDS[word]}", "label": [label], "images": row["images"]})
    return rows


def make(folder: Path, base_of: str, count: int = 24, held_out: int = 8, **parameters: Any) -> Path:
    base = folder.with_name(f"{base_of}-base")
    if not base.exists():
        WRITE[base_of](base)
    job = make_job(folder, "fusion", {"optimization": PLAN, **parameters}, [], base=base)
    write_rows(job / "in" / "train.jsonl", labeled(job / "in" / "assets", 0, count))
    write_rows(job / "in" / "validation.jsonl", labeled(job / "in" / "assets", 100_000, held_out))
    return job


def python(*words: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=500)


def run(job: Path) -> dict[str, Any]:
    """What a process leaves, with what it said."""
    done = python("-m", "services.trainer.recipes.fusion", str(job))
    assert (job / "result.json").is_file(), done.stderr
    return {**result(job), "said": done.stderr}


SEVERAL = """
import sys
from pathlib import Path
from services.trainer.recipes import fusion
from services.trainer.recipes.job.jobdir import run_recorded

for job in sys.argv[1:]:
    run_recorded(Path(job), fusion.train)
"""


def run_each(*jobs: Path) -> list[dict[str, Any]]:
    """What one process leaves of several jobs, one after the other."""
    done = python("-P", "-c", SEVERAL, *map(str, jobs))
    assert all((job / "result.json").is_file() for job in jobs), done.stderr
    return [{**result(job), "said": done.stderr} for job in jobs]


def test_neither_the_image_nor_the_text_alone_tells_the_label(tmp_path: Path) -> None:
    rows = labeled(tmp_path / "assets", 0, 8)
    assert Counter((row["text"], *row["label"]) for row in rows) == {
        (f"<image>{word}", label): 2 for word in WORDS for label in ("yes", "no")
    }
    digit = [place % 2 for place in range(8)]
    assert Counter(zip(digit, (row["label"][0] for row in rows), strict=True)) == {
        (each, label): 2 for each in (0, 1) for label in ("yes", "no")
    }


@pytest.mark.prove
def test_the_first_losses_and_what_is_left(tmp_path: Path) -> None:
    job = make(tmp_path / "job", "late", full={}, **SEES)
    found = run(job)
    assert found["outcome"] == "succeeded", found["said"]
    losses = [step["loss"] for step in progress(job, "step")]
    assert losses == pytest.approx(FIRST_LOSSES, abs=1e-4), losses
    assert found["settings"]["fusion"] == '"late"' and found["artifact"] == {"kind": "full", "path": "out/model"}
    assert 0 <= found["metrics"]["accuracy"] <= 1 and found["environment"]["confusion"].startswith("[[")
    config = json.loads((job / "out" / "model" / "config.json").read_text())
    assert config["architectures"] == ["CLIPModel"] and config["id2label"] == {"0": "no", "1": "yes"}
    assert (job / "out" / "model" / HEAD / WEIGHTS).is_file()

    # What a serving engine is asked is the image itself with its text.
    probes = [json.loads(line) for line in (job / "parity.jsonl").read_text().splitlines()]
    image, text = probes[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": WORDS[0]} and image["image_url"]["url"].startswith("data:image/png;base64,")
    assert len(probes) == 8 and all(len(probe["values"]) == 2 for probe in probes)


@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("fusion", "steps"), [("early", 240), ("late", 240)])
def test_it_learns_what_only_both_tell(tmp_path: Path, fusion: str, steps: int) -> None:
    plan = {**PLAN, "batch_size": 16, "max_steps": steps}
    job = make(tmp_path / "job", fusion, 320, 80, optimization=plan, full={}, **SEES)
    found = run(job)
    assert found["outcome"] == "succeeded", found["said"]
    assert found["metrics"]["accuracy"] >= 0.85, found["metrics"]
    assert found["settings"]["fusion"] == f'"{fusion}"'


BATCH = """
import sys
from pathlib import Path
from services.trainer.recipes import fusion as recipe
from services.trainer.recipes.job.failures import BadInput
import torch
from safetensors.torch import load_file

folder, kind = Path(sys.argv[2]), sys.argv[1]
rows = recipe.read_shown(folder / "in" / "train.jsonl")
classes = recipe.Classes.of(rows, {})
found, processor, model = recipe.load_fused(folder / "in" / "base", "", classes.names, classes.problem_type)
assert found == kind, found
name, place = ("visual.merger.mlp.0.weight", "model.") if kind == "early" else ("text_projection.weight", "encoders.")
before = load_file(folder / "in" / "base" / "model.safetensors")
assert model.get_parameter(place + name).equal(before[name]), "the weights of the base"
reader = recipe.READERS[found](processor, model, 512)
given = recipe.fitting(reader, classes, rows)[:4]
reader.settle(given)
batch = recipe.Collator(reader)(given)
recipe.check_given(batch, given)
assert batch["pixel_values"].isfinite().all() and batch["pixel_values"].abs().sum() > 0
assert batch["labels"].tolist() == [0, 1, 1, 0] and batch["attention_mask"].sum(1).tolist() == [g.length for g in given]
if kind == "late":
    assert tuple(batch["pixel_values"].shape) == (4, 3, 28, 28) and "image_grid_thw" not in batch
else:
    assert (batch["input_ids"] == model.config.image_token_id).sum() == 4 and len(batch["image_grid_thw"]) == 4

def answered(batch):
    return model.eval()(**{name: made for name, made in batch.items() if name != "labels"}).logits


for name, turned in {"pixel_values": batch["pixel_values"].flip(0), "input_ids": batch["input_ids"].roll(2, 0)}.items():
    assert not torch.allclose(answered(batch), answered({**batch, name: turned}), atol=1e-6), name
for name, wrong in {
    "labels": 1 - batch["labels"],
    "pixel_values": batch["pixel_values"] * float("nan"),
    "attention_mask": batch["attention_mask"] * 0,
}.items():
    try:
        recipe.check_given({**batch, name: wrong}, given)
    except BadInput:
        continue
    raise AssertionError(name)
"""


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fusion", WRITE)
def test_a_batch_holds_pixels_and_the_labels_of_its_rows(tmp_path: Path, fusion: str) -> None:
    job, script = make(tmp_path / "job", fusion, 8, 0), tmp_path / "batch.py"
    script.write_text(BATCH)
    done = python("-P", str(script), fusion, str(job))  # the job last: its spec says what is hidden
    assert done.returncode == 0, done.stderr


@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fusion", WRITE)
def test_paused_and_resumed_gives_the_same_weights(tmp_path: Path, fusion: str) -> None:
    plan = {**PLAN, "max_steps": 6}
    given = {"lora": {"rank": 4, "dropout": 0.1}, "optimization": plan, "checkpoint_every_steps": 3, **SEES}
    whole, paused = (make(tmp_path / name, fusion, **given) for name in ("whole", "paused"))
    command(paused, "pause")
    found, stopped = run_each(whole, paused)
    assert found["outcome"] == "succeeded" and found["artifact"]["kind"] == "full", found["said"]
    assert found["metrics"]["trainable_parameters"] < 0.5 * found["metrics"]["total_parameters"]
    assert stopped["outcome"] == "paused", stopped["said"]
    (paused / "control.json").unlink()
    found = run(paused)
    assert found["outcome"] == "succeeded", found["said"]
    assert digests(whole / "out") == digests(paused / "out")


def changed(job: Path, **fields: Any) -> Path:
    """The job with its first row changed."""
    file = job / "in" / "train.jsonl"
    first, *rest = map(json.loads, file.read_text().splitlines())
    write_rows(file, [{**first, **fields}, *rest])
    return job


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_what_cannot_be_trained_on_is_said_in_a_sentence(tmp_path: Path) -> None:
    def job(name: str, base_of: str, **asked: Any) -> Path:
        return make(tmp_path / name, base_of, 4, 4, **asked)

    two = json.loads((job("two", "late") / "in" / "train.jsonl").read_text().splitlines()[0])
    said = {
        "fusion is late, but a qwen2_vl reads images and text as one": job("a", "early", fusion="FUSION_LATE"),
        "fusion is early, but a clip has an encoder of images and one": job("b", "late", fusion="FUSION_EARLY"),
        "line 1 has 2 images; fusion late has a vector of one": changed(
            tmp_path / "two", images=two["images"] * 2, text="<image><image>is it"
        ),
        "line 1 has no image, or no text beside its images": changed(job("c", "late"), text="<image>"),
        "line 1 has a label that is not among the 2 known": job("d", "late", label_names=["yes", "maybe"]),
        "rows are longer than max_length 16": job("e", "early", max_length=16),
        "target_modules names the head alone": job("f", "early", lora={"target_modules": ["score"]}),
    }
    for sentence, found in zip(said, run_each(*said.values()), strict=True):
        assert found["outcome"] == "failed" and found["error"]["reason"] == "BAD_INPUT", found["said"]
        assert sentence in found["error"]["message"], found["error"]
