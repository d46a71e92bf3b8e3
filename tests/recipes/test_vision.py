"""Fine-tuning of models that see: what a batch holds, what is trained, and that held-out digits are read.

Each run is a process of its own: what a recipe hides from the libraries is hidden for good, and this one needs
torchvision.
"""

import base64
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.recipes.jobs import command, digests, make_job, progress, run_recipe, write_rows
from tests.seeing import SPECIAL, digit, staged, staged_films, write_qwen2_vl

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

SEES = {"train_vision_tower": True, "train_projector": True}
VIDEO = SPECIAL.index("<|video_pad|>")
FIRST_LOSSES = [6.59278, 6.42155, 5.05852]
PLAN = {"learning_rate": 3e-3, "batch_size": 8, "max_steps": 3}


def make(folder: Path, count: int = 24, held_out: int = 8, **parameters: Any) -> Path:
    base = folder.with_name("base")
    if not base.exists():
        write_qwen2_vl(base)
    job = make_job(folder, "vision", {"optimization": PLAN, **parameters}, [], base=base)
    write_rows(job / "in" / "train.jsonl", staged(job / "in" / "assets", 0, count))
    write_rows(job / "in" / "validation.jsonl", staged(job / "in" / "assets", 100_000, held_out))
    return job


def tower(folder: Path) -> dict[str, bytes]:
    weights = load_file(folder / "model.safetensors")
    return {name: array.tobytes() for name, array in weights.items() if "visual" in name}


def test_the_first_losses_and_what_is_left(tmp_path: Path) -> None:
    job = make(tmp_path / "job", full={})
    found = run_recipe("vision", job)
    assert found["outcome"] == "succeeded", found["said"]
    losses = [step["loss"] for step in progress(job, "step")]
    assert losses == pytest.approx(FIRST_LOSSES, abs=1e-4), losses
    assert found["metrics"]["trainable_parameters"] < found["metrics"]["total_parameters"]
    assert tower(job / "out" / "model") == tower(job / "in" / "base"), "frozen unless asked for"
    assert 0 <= found["metrics"]["eval_exact_match"] <= 1 and found["settings"]["trained_parts"] == '"language"'

    # What a serving engine is asked is the image itself, and the tokens are those with the image's own.
    line = json.loads((job / "parity.jsonl").read_text().splitlines()[0])
    (image, text) = line["messages"][0]["content"]
    url = image["image_url"]["url"]
    assert text == {"type": "text", "text": "which digit?"} and url.startswith("data:image/png;base64,")
    shown = hashlib.sha256(base64.b64decode(url.partition(",")[2])).hexdigest()
    assert (job / "in" / "assets" / shown).is_file()
    assert len(line["completion_token_ids"]) == len(line["logprobs"]) > 0


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_it_learns_to_read_held_out_digits(tmp_path: Path) -> None:
    plan = {**PLAN, "batch_size": 16, "max_steps": 240}
    job = make(tmp_path / "job", 400, 60, optimization=plan, full={}, **SEES)
    found = run_recipe("vision", job)
    assert found["outcome"] == "succeeded", found["said"]
    evaluated = progress(job, "eval")
    assert evaluated[0]["loss"] > 2 * evaluated[-1]["loss"]
    assert found["metrics"]["eval_exact_match"] >= 0.9, found["metrics"]
    changed, before = tower(job / "out" / "model"), tower(job / "in" / "base")
    assert all(changed[name] != before[name] for name in before if name.endswith("weight"))


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("whole", [True, False])
def test_it_learns_which_way_a_dot_goes_in_held_out_videos(tmp_path: Path, whole: bool) -> None:
    base = write_qwen2_vl(tmp_path / "base")
    if not whole:  # a model without an input for videos, which is shown their frames
        config = json.loads((base / "config.json").read_text())
        del config["video_token_id"]
        (base / "config.json").write_text(json.dumps(config))
    plan = {**PLAN, "batch_size": 16, "max_steps": 150}
    job = make_job(tmp_path / "job", "vision", {"optimization": plan, "full": {}, **SEES}, [], base=base)
    write_rows(job / "in" / "train.jsonl", staged_films(job / "in" / "assets", 0, 320))
    write_rows(job / "in" / "validation.jsonl", staged_films(job / "in" / "assets", 100_000, 48))
    found = run_recipe("vision", job)
    assert found["outcome"] == "succeeded", found["said"]
    assert found["metrics"]["eval_exact_match"] >= 0.9, found["metrics"]
    # The engine is asked in the way that was trained; two frames are one token of a video, and one of images.
    line = json.loads((job / "parity.jsonl").read_text().splitlines()[0])
    *parts, text = line["messages"][0]["content"]
    assert text == {"type": "text", "text": "which way?"}
    if whole:
        (video,) = parts
        kind, *frames = video["video_url"]["url"].split(",")
        assert kind == "data:video/jpeg;base64" and line["prompt_token_ids"].count(VIDEO) == len(frames) // 2 == 2
    else:
        assert [part["type"] for part in parts] == ["image_url"] * 4 and VIDEO not in line["prompt_token_ids"]


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_an_adapter_stays_where_it_was_asked_for(tmp_path: Path) -> None:
    named: dict[str, set[str]] = {}
    for name, asked in {"plain": {}, "all": SEES, "some": {"lora": {"target_modules": ["q_proj"]}}}.items():
        job = (
            make(tmp_path / name, lora={"rank": 4}, **asked) if "lora" not in asked else make(tmp_path / name, **asked)
        )
        found = run_recipe("vision", job)
        assert found["outcome"] == "succeeded" and found["artifact"]["kind"] == "adapter", found["said"]
        named[name] = set(load_file(job / "out" / "model" / "adapter_model.safetensors"))
    seeing = {name for name in named["all"] if "visual" in name}
    assert not any("visual" in name for name in named["plain"] | named["some"]) and len(named["plain"]) == 2 * 7
    assert named["all"] - seeing == named["plain"] and any("merger" in name for name in seeing)
    assert len(named["some"]) == 2


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_paused_and_resumed_gives_the_same_weights_whoever_opens_images(tmp_path: Path) -> None:
    plan = {**PLAN, "max_steps": 8}
    given = {"lora": {"rank": 4, "dropout": 0.1}, "optimization": plan, "checkpoint_every_steps": 3, **SEES}
    whole, paused = (
        make(tmp_path / "whole", **given),
        make(tmp_path / "paused", **given, performance={"dataloader_num_workers": 2}),
    )
    assert run_recipe("vision", whole)["outcome"] == "succeeded"
    command(paused, "pause")
    assert run_recipe("vision", paused)["outcome"] == "paused"
    (paused / "control.json").unlink()
    found = run_recipe("vision", paused)
    assert found["outcome"] == "succeeded" and found["settings"]["dataloader_num_workers"] == "2", found["said"]
    assert digests(whole / "out") == digests(paused / "out")


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_what_cannot_be_trained_on_is_said_in_a_sentence(tmp_path: Path) -> None:
    said = {
        "the shortest has 23 tokens with its images": {"max_length": 16},
        "no linear module of the parts that are trained": {"lora": {"target_modules": ["qkv"]}},
    }
    for place, (sentence, asked) in enumerate(said.items()):
        found = run_recipe("vision", make(tmp_path / str(place), 2, 2, **asked))
        assert found["rc"] == 1 and found["error"]["reason"] == "BAD_INPUT", found["said"]
        assert sentence in found["error"]["message"]


def test_a_text_after_a_video_starts_one_past_its_largest_position(recipes: SimpleNamespace) -> None:
    import torch  # not at collection

    from services.trainer.recipes.models.video_positions import shift

    # A mark of text, a video of three steps and one patch, two texts; then a row with padding and an image instead.
    kinds = torch.tensor([[0, 2, 2, 2, 0, 0], [0, 0, 1, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    video = [[0, 1, 2, 3, 2, 3], [0, 1, 1, 1, 2, 3], [0, 1, 1, 1, 2, 3]]  # as transformers counts
    image = [[0, 1, 2, 3, 0, 0]] * 3
    positions = torch.tensor([video, image]).transpose(0, 1).contiguous()
    deltas = torch.tensor([[4 - 6], [0]])
    shift(positions, deltas, kinds, mask)
    assert positions[:, 0].tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 1, 1, 4, 5], [0, 1, 1, 1, 4, 5]]
    assert positions[:, 1].tolist() == image and deltas.tolist() == [[0], [0]]


def test_digits_differ_each_time() -> None:
    assert digit(3).tobytes() != digit(13).tobytes() and digit(3).tobytes() == digit(3).tobytes()
