"""Fine-tuning of models that hear: what a batch holds, what is trained, and that held-out melodies are written down.

Each run is a process of its own, as in `test_vision.py`.
"""

import base64
import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile
from safetensors.numpy import load_file

from tests.hearing import staged, write_qwen3_asr
from tests.recipes.jobs import command, digests, make_job, progress, run_recipe, write_rows
from tests.seeing import write_qwen2_vl

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

HEARS = {"train_audio_tower": True, "train_projector": True}
FIRST_LOSSES = [6.31592, 6.00646, 4.96692]
PLAN = {"learning_rate": 3e-3, "batch_size": 8, "max_steps": 3}


def make(folder: Path, count: int = 24, held_out: int = 8, **parameters: Any) -> Path:
    base = folder.with_name("base")
    if not base.exists():
        write_qwen3_asr(base)
    job = make_job(folder, "audio", {"optimization": PLAN, **parameters}, [], base=base)
    write_rows(job / "in" / "train.jsonl", staged(job / "in" / "assets", 0, count))
    write_rows(job / "in" / "validation.jsonl", staged(job / "in" / "assets", 100_000, held_out))
    return job


def tower(folder: Path) -> dict[str, bytes]:
    weights = load_file(folder / "model.safetensors")
    return {name: array.tobytes() for name, array in weights.items() if "audio_tower" in name}


@pytest.mark.prove
def test_the_first_losses_and_what_is_left(tmp_path: Path) -> None:
    job = make(tmp_path / "job", full={})
    found = run_recipe("vision", job)
    assert found["outcome"] == "succeeded", found["said"]
    losses = [step["loss"] for step in progress(job, "step")]
    assert losses == pytest.approx(FIRST_LOSSES, abs=1e-4), losses
    assert tower(job / "out" / "model") == tower(job / "in" / "base"), "frozen unless asked for"
    assert found["settings"]["trained_parts"] == '"language"' and found["metrics"]["rows_dropped"] == 0

    # What a serving engine is asked is the sound itself, in stereo and at another rate than the model's.
    line = json.loads((job / "parity.jsonl").read_text().splitlines()[2])
    (sound, text) = line["messages"][0]["content"]
    content = base64.b64decode(sound["input_audio"]["data"])
    assert text == {"type": "text", "text": "which notes?"} and sound["input_audio"]["format"] == "wav"
    assert (job / "in" / "assets" / hashlib.sha256(content).hexdigest()).is_file()
    told = soundfile.info(io.BytesIO(content))
    assert (told.samplerate, told.channels) == (22_050, 2)
    assert len(line["completion_token_ids"]) == len(line["logprobs"]) > 0


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_it_learns_to_write_down_held_out_melodies(tmp_path: Path) -> None:
    plan = {**PLAN, "batch_size": 16, "max_steps": 200}
    job = make(tmp_path / "job", 320, 48, optimization=plan, full={}, **HEARS)
    found = run_recipe("vision", job)
    assert found["outcome"] == "succeeded", found["said"]
    evaluated = progress(job, "eval")
    assert evaluated[0]["loss"] > 2 * evaluated[-1]["loss"]
    assert found["metrics"]["eval_exact_match"] >= 0.9, found["metrics"]
    changed, before = tower(job / "out" / "model"), tower(job / "in" / "base")
    assert all(changed[name] != before[name] for name in before if name.endswith("weight"))


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_an_adapter_is_served_beside_its_base_unless_it_hears(tmp_path: Path) -> None:
    job = make(tmp_path / "plain", lora={"rank": 4})
    found = run_recipe("vision", job)
    assert found["outcome"] == "succeeded" and found["artifact"]["kind"] == "adapter", found["said"]
    names = set(load_file(job / "out" / "model" / "adapter_model.safetensors"))
    assert len(names) == 2 * 7 and all("language_model" in name for name in names)

    job = make(tmp_path / "all", lora={"rank": 4}, **HEARS)  # no engine hears with one: it is merged
    found = run_recipe("vision", job)
    assert found["outcome"] == "succeeded" and found["artifact"]["kind"] == "full", found["said"]
    changed, before = tower(job / "out" / "model"), tower(job / "in" / "base")
    assert {name for name in before if changed[name] != before[name]} == {
        name for name in before if name.endswith(("proj.weight", "fc1.weight", "fc2.weight", "conv_out.weight"))
    }


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_paused_and_resumed_gives_the_same_weights_whoever_opens_sounds(tmp_path: Path) -> None:
    plan = {**PLAN, "max_steps": 8}
    given = {"lora": {"rank": 4, "dropout": 0.1}, "optimization": plan, "checkpoint_every_steps": 3, **HEARS}
    whole, paused = (
        make(tmp_path / "whole", **given),
        make(tmp_path / "paused", **given, performance={"dataloader_num_workers": 2}),
    )
    assert run_recipe("vision", whole)["outcome"] == "succeeded"
    command(paused, "pause")
    assert run_recipe("vision", paused)["outcome"] == "paused"
    (paused / "control.json").unlink()
    found = run_recipe("vision", paused)
    assert found["outcome"] == "succeeded", found["said"]
    assert digests(whole / "out") == digests(paused / "out")


def test_a_batch_without_what_its_rows_name_is_refused(recipes: SimpleNamespace) -> None:
    import torch  # not at collection

    from services.trainer.recipes.data.picture_batches import Told, check_seen
    from services.trainer.recipes.data.pictures import Seen
    from services.trainer.recipes.job.failures import BadInput

    answer = [{"role": "assistant", "content": [{"type": "text", "text": "do"}]}]
    template = SimpleNamespace(tokenizer=SimpleNamespace(decode=lambda ids, **_: "do"))
    text = {
        "input_ids": torch.tensor([[5, 7]]),
        "attention_mask": torch.ones(1, 2),
        "labels": torch.tensor([[-100, 7]]),
    }
    pixels, broken = torch.ones(1, 3), torch.tensor([[torch.nan]])
    seen = {
        "images": Seen(answer, [Path("a")]),
        "videos": Seen(answer, [], [[Path("a")]]),
        "sounds": Seen(answer, [], sounds=[Path("a")]),
    }
    made = {
        "images": {"pixel_values": pixels},
        "videos": {"pixel_values_videos": pixels},
        "sounds": {"input_features": pixels},
    }
    for of, row in seen.items():
        told = [Told("", "do", [7], row, 2)]
        for given, numbers in made.items():
            if given == of:
                check_seen(template, {**text, **numbers}, told)
                continue
            with pytest.raises(BadInput, match=f"makes no (pixel values|features) of {of}"):
                check_seen(template, {**text, **numbers}, told)
        with pytest.raises(BadInput, match=f"makes no (pixel values|features) of {of}"):
            check_seen(template, {**text, **dict.fromkeys(made[of], broken)}, told)
    with pytest.raises(BadInput, match="another number of tokens"):
        check_seen(template, {**text, **made["sounds"]}, [Told("", "do", [7], seen["sounds"], 3)])
    with pytest.raises(BadInput, match="the loss on other tokens than the answers"):
        check_seen(template, {**text, **made["sounds"]}, [Told("", "do", [8], seen["sounds"], 2)])


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_what_cannot_be_trained_on_is_said_in_a_sentence(tmp_path: Path) -> None:
    blind = write_qwen2_vl(tmp_path / "blind")
    job = make_job(tmp_path / "deaf", "audio", {}, staged(tmp_path / "sounds", 0, 2), base=blind)
    short = make(tmp_path / "short", 2, 2, max_length=16)
    for folder, sentence in {
        job: "line 1 names sounds, which the base model does not hear",
        short: "tokens with its images, videos and sounds, so raise max_length",
    }.items():
        found = run_recipe("vision", folder)
        assert found["rc"] == 1 and found["error"]["reason"] == "BAD_INPUT", found["said"]
        assert sentence in found["error"]["message"]


def test_what_no_engine_can_be_asked_is_left_out(recipes: SimpleNamespace) -> None:
    from services.trainer.recipes.data.picture_batches import Told, fitting
    from services.trainer.recipes.data.pictures import Seen
    from services.trainer.recipes.job.failures import BadInput

    template = SimpleNamespace(tell=lambda row: Told("", "do", [7], row, 2))
    one, two, many = Seen([], [], sounds=[Path("a")]), Seen([], [], sounds=[Path("a")] * 2), Seen([], [Path("a")] * 17)
    assert [told.seen for told in fitting(template, [two, one, many], 8)] == [one]
    with pytest.raises(BadInput, match="All 2 rows have more than engines take in one request: image 16, video 1, aud"):
        fitting(template, [two, many], 8)


def test_rows_that_fit_no_batch_together_are_told_before_the_first_step(
    recipes: SimpleNamespace, tmp_path: Path
) -> None:
    from PIL import Image

    from services.trainer.recipes.data.picture_batches import Template, Told, check_mixed
    from services.trainer.recipes.data.pictures import Seen
    from services.trainer.recipes.job.failures import BadInput

    class Processor:
        """Wants a list of images for each text, as Idefics and its kin do."""

        chat_template, tokenizer = "", SimpleNamespace(eos_token="")

        def __call__(self, text: list[str], images: list[Any], **_: Any) -> dict[str, Any]:
            if len(images) != len(text):
                raise ValueError("The number of images does not match the number of texts.")
            raise AssertionError("no batch is made of rows of one kind here")

    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    seen = Told("", "do", [7], Seen([], [tmp_path / "a.png"]), 2)
    plain = Told("", "do", [7], Seen([], []), 2)
    template = Template(Processor())  # type: ignore[arg-type]
    check_mixed(template, [seen, seen])
    with pytest.raises(BadInput, match="takes no rows with so many images, videos or sounds; give each row one"):
        check_mixed(template, [seen, seen, seen, plain])
