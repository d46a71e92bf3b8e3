"""The life of a model with nothing made up: real recipes train it, and a real vLLM is asked and serves."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from sluice.gateway import v1 as gateway
from sluice.registry import v1 as registry
from sluice.types import v1 as types
from tests import invariants
from tests.dual import write_clip
from tests.hearing import said, write_melodies, write_qwen3_asr
from tests.pipeline import ENDPOINT, Pipeline, Run, pipeline, row, short
from tests.seeing import way, write_digits, write_films, write_qwen2_vl

SHAPE = {"hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300, "max_position_embeddings": 256}
TRAINING = {"max_steps": 12, "batch_size": 8, "learning_rate": 3e-3}
LORA = {"lora_rank": 8, "lora_alpha": 16, "max_length": 128}
COLORS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A suite of real processes."""
    # One vLLM a model: an engine of its own for the first load of an adapter is proven in tests/integration.
    environ = {"SLUICE_ENGINE_SCRATCH_PROOF": "false", "SLUICE_ENGINE_MAX_MODEL_LEN": "256"}
    with pipeline(tmp_path_factory.mktemp("real"), "services", **environ) as running:
        running.patience_s = 240
        yield running


@pytest.fixture(scope="module")
def real(suite: Pipeline) -> tuple[Pipeline, Run]:
    """The suite, with a base that serves."""
    suite.create_endpoint()
    return suite, suite.base(300, **SHAPE, **TRAINING, max_length=64)


@pytest.mark.vllm
@pytest.mark.training
@pytest.mark.timeout(600)
def test_what_was_trained_is_what_is_judged_and_served(real: tuple[Pipeline, Run]) -> None:
    running, base = real
    assert base.rollout and base.rollout.state == gateway.ROLLOUT_STATE_PROMOTED, base.version.gate_decision
    with running.traffic(threads=1) as seen:
        # A toy learns nothing in twelve steps, so it is only asked to be what was trained.
        run = running.follow(running.train(**LORA, **TRAINING, gate_policy="baseline"))
    for each in (base, run):
        promoted_and_the_same(each)
    assert not seen.failures and {"base@1", "adapter@1"} <= set(seen.answers)
    message = row("sft", 3)["messages"][0]
    with OpenAI(base_url=f"{running.suite.state['http']}/v1", api_key=running.suite.key, max_retries=0) as client:
        pieces = client.chat.completions.with_raw_response.create(
            model=ENDPOINT, messages=[message], max_tokens=8, temperature=0, stream=True
        )
        assert short(pieces.headers["x-sluice-version"]) == "adapter@1"
        assert sum(1 for piece in pieces.parse() if piece.choices) >= 1
    invariants.told_in_order(run, running.client.events().list(limit=0))
    invariants.hold(running)


def pair(number: int) -> dict[str, Any]:
    color, other = COLORS[number % 3], COLORS[(number + 1) % 3]
    return {"prompt": f"Which color is shelf {number}?", "chosen": f"It is {color}.", "rejected": f"Hardly {other}."}


def verdict(number: int) -> dict[str, Any]:
    wanted = pair(number // 2)
    return {
        "prompt": wanted["prompt"],
        "completion": wanted["rejected" if number % 2 else "chosen"],
        "label": number % 2 == 0,
    }


def match(number: int) -> dict[str, Any]:
    color, other = COLORS[number % 3], COLORS[(number + 1) % 3]
    return {
        "query": f"{color} {number}",
        "positive": f"shelf {number} is {color}",
        "negatives": [f"shelf {number} is {other}"],
    }


def label(number: int) -> dict[str, Any]:
    return {"text": f"shelf {number} is {COLORS[number % 3]}", "label": COLORS[number % 3]}


def queue(number: int) -> dict[str, Any]:
    return {"prompt": f"Which color is shelf {number}?", "completion": COLORS[number % 3]}


def answered(number: int) -> dict[str, Any]:
    wanted = pair(number)
    return {"prompt": wanted["prompt"], "completion": wanted["chosen"]}


def named(number: int) -> dict[str, Any]:
    text, color = f"shelf {number} is {COLORS[number % 3]}", COLORS[number % 3]
    return {"text": text, "entities": [[len(text) - len(color), len(text), "COLOR"]]}


CHAT = {"messages": [{"role": "user", "content": "Which color is shelf 4?"}], "max_tokens": 4}
#: By task type: its rows, what its endpoint is asked and how many things the answer holds.
KINDS: dict[str, tuple[Callable[[int], dict[str, Any]], str, dict[str, Any], Callable[[Any], int], int]] = {
    "dpo": (pair, "chat/completions", CHAT, lambda said: len(said["choices"]), 1),
    "sequence-classification": (
        label, "classify", {"input": ["shelf 4 is red"]}, lambda said: len(said["data"][0]["probs"]), 3,
    ),
    "orpo": (pair, "chat/completions", CHAT, lambda said: len(said["choices"]), 1),
    "kto": (verdict, "chat/completions", CHAT, lambda said: len(said["choices"]), 1),
    "rm": (pair, "classify", {"messages": CHAT["messages"]}, lambda said: len(said["data"][0]["probs"]), 1),
    "grpo": (queue, "chat/completions", CHAT, lambda said: len(said["choices"]), 1),
    "rloo": (queue, "chat/completions", CHAT, lambda said: len(said["choices"]), 1),
    "ppo": (queue, "chat/completions", CHAT, lambda said: len(said["choices"]), 1),
    "embedding": (match, "embeddings", {"input": "red 4"}, lambda said: len(said["data"][0]["embedding"]), 64),
    "gkd": (answered, "chat/completions", CHAT, lambda said: len(said["choices"]), 1),
    "token-classification": (named, "entities", {"input": ["shelf 4 is red", "a"]}, lambda said: len(said["data"]), 2),
    "reranker": (
        match, "rerank", {"query": "red 4", "documents": ["a", "b"]}, lambda said: len(said["results"]), 2,
    ),
}  # fmt: skip
#: So many that a tenth is enough for a gate.
ROWS = 450
LANDING = ("dpo",)


@pytest.mark.vllm
@pytest.mark.training
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "task_type", [kind if kind in LANDING else pytest.param(kind, marks=pytest.mark.prove) for kind in KINDS]
)
def test_each_task_type_goes_from_rows_to_an_answer_at_its_own_endpoint(
    real: tuple[Pipeline, Run], task_type: str
) -> None:
    running, _ = real
    make, path, asked, count, expected = KINDS[task_type]
    file = running.suite.folder / f"{task_type}.jsonl"
    file.write_text("".join(json.dumps(make(number)) + "\n" for number in range(ROWS)))
    rows = running.client.datasets.upload(name=f"rows-{task_type}", path=file, task_type=task_type)
    told: dict[str, Any] = {"max_steps": 6, "batch_size": 8, "max_length": 64}
    if task_type == "rm":  # its gate wants better than a coin
        told |= {"max_steps": 40, "learning_rate": 5e-3}
    if task_type in ("grpo", "rloo", "ppo"):
        told |= {"max_new_tokens": 8, "rewards": ["exact_match", {"length": {"at_most": 9}, "weight": 0.5}]}
    if task_type == "ppo":
        told |= {"reward_model_version": reward_model(running, told["max_length"]), "reward_model_weight": 0.1}
    if task_type == "gkd":
        told |= {"teacher_model_version": "base@1", "max_new_tokens": 8}
    job = running.client.train(dataset=rows.name, model=task_type, base="base@1", task_type=task_type, **told)
    run = running.follow(job.name)
    promoted_and_the_same(run)
    named = {value for name, value in told.items() if name.endswith("_model_version")}
    assert {short(each) for each in run.version.lineage.read_model_versions.values()} == named
    assert run.evaluation.report.rows_scored >= 30 and not run.evaluation.report.rows_failed
    with httpx.Client(base_url=running.suite.state["http"], trust_env=False, timeout=60) as client:
        headers = {"authorization": f"Bearer {running.suite.key}"}
        answer = client.post(f"/v1/{path}", json={"model": task_type, **asked}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert short(answer.headers["x-sluice-version"]) == f"{task_type}@1"
    assert count(answer.json()) == expected


def seen(task_type: str, number: int) -> dict[str, Any]:
    """A row about the image of a digit, in the fields of its field."""
    image, said = {"image": f"{number}.png"}, str(number % 10)
    return {
        "vqa": {**image, "question": "which digit?", "answer": said},
        "caption": {**image, "caption": f"it is {said}"},
        "ocr": {**image, "text": said},
        "grounding": {**image, "expression": f"the {said}", "bbox": [7, 5, 21, 23]},
    }[task_type]


#: What is trained of a model that sees: an adapter, served beside its base, or weights, served alone.
SIGHTED: dict[str, dict[str, Any]] = {
    "vqa": {"lora_rank": 8, "train_vision_tower": True, "train_projector": True},
    "caption": {"lora_rank": 8},
    "ocr": {"tuner": "full", "train_projector": True},
    "grounding": {"lora_rank": 8, "lora_variant": "dora"},
}


@pytest.mark.vllm
@pytest.mark.training
@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task_type", SIGHTED)
def test_each_task_type_about_images_goes_from_them_to_an_answer(real: tuple[Pipeline, Run], task_type: str) -> None:
    running, _ = real
    folder = running.suite.folder / f"pictures-{task_type}"
    write_digits(folder, 0, ROWS)
    file = folder.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(seen(task_type, number)) + "\n" for number in range(ROWS)))
    rows = running.client.datasets.upload(name=folder.name, path=file, task_type=task_type, assets=folder)
    base = write_qwen2_vl(running.suite.folder / f"base-{task_type}")
    base_version = running.client.models.import_folder(
        f"sees-{task_type}", base, dataset=rows.name, task_type=task_type
    )
    told = {"max_steps": 8, "batch_size": 8, "max_length": 64, "learning_rate": 3e-3, **SIGHTED[task_type]}
    job = running.client.train(dataset=rows.name, model=task_type, base=base_version.name, task_type=task_type, **told)
    run = running.follow(job.name)
    promoted_and_the_same(run)
    assert run.evaluation.report.rows_scored >= 30 and not run.evaluation.report.rows_failed
    picture = base64.b64encode((folder / "4.png").read_bytes()).decode()
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]
    parts += [{"type": "text", "text": "which digit?"}]
    with OpenAI(base_url=f"{running.suite.state['http']}/v1", api_key=running.suite.key, max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(
            model=task_type, messages=[{"role": "user", "content": parts}], max_tokens=4, temperature=0
        )
    assert short(answer.headers["x-sluice-version"]) == f"{task_type}@1"
    assert answer.parse().choices


def heard(folder: Path) -> list[dict[str, Any]]:
    """Rows about the sounds that are written below a folder."""
    return [{"audio": name, "text": said(number)} for number, name in enumerate(write_melodies(folder, 0, ROWS))]


def questioned(folder: Path) -> list[dict[str, Any]]:
    return [{"audio": row["audio"], "question": "which notes?", "answer": row["text"]} for row in heard(folder)]


def filmed(folder: Path) -> list[dict[str, Any]]:
    """Rows about the videos whose frames are written below a folder."""
    films = enumerate(write_films(folder, 0, ROWS))
    return [{"video": frames, "question": "which way?", "answer": way(number)} for number, frames in films]


#: By name: the task type, its rows, its base, and what is trained of that.
SENSED: dict[str, tuple[str, Callable[[Path], list[dict[str, Any]]], Callable[[Path], Path], dict[str, Any]]] = {
    "heard": ("asr", heard, write_qwen3_asr, {"lora_rank": 8}),
    "questioned": ("audio-qa", questioned, write_qwen3_asr, {"lora_rank": 8, "train_audio_tower": True}),
    "filmed": ("vqa", filmed, write_qwen2_vl, {"lora_rank": 8, "train_vision_tower": True}),
}


@pytest.mark.vllm
@pytest.mark.training
@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SENSED)
def test_each_task_type_about_sounds_and_videos_goes_from_them_to_an_answer(suite: Pipeline, name: str) -> None:
    task_type, make, write, told = SENSED[name]
    folder = suite.suite.folder / name
    file = folder.with_suffix(".jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in make(folder)))
    rows = suite.client.datasets.upload(name=name, path=file, task_type=task_type, assets=folder)
    base = suite.client.models.import_folder(f"base-{name}", write(suite.suite.folder / f"base-{name}"))
    told = {"max_steps": 8, "batch_size": 8, "max_length": 64, "learning_rate": 3e-3, **told}
    job = suite.client.train(dataset=rows.name, model=name, base=base.name, task_type=task_type, **told)
    run = suite.follow(job.name)
    promoted_and_the_same(run)
    assert run.evaluation.report.rows_scored >= 30 and not run.evaluation.report.rows_failed
    part: dict[str, Any] = {"type": "input_audio", "input_audio": {"format": "wav"}}
    if name == "filmed":
        frames = ",".join(base64.b64encode((folder / f"4-{frame}.png").read_bytes()).decode() for frame in range(4))
        part = {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}
    else:
        part["input_audio"]["data"] = base64.b64encode((folder / "4.wav").read_bytes()).decode()
    with OpenAI(base_url=f"{suite.suite.state['http']}/v1", api_key=suite.suite.key, max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(
            model=name, messages=[{"role": "user", "content": [part]}], max_tokens=4, temperature=0
        )
    assert short(answer.headers["x-sluice-version"]) == f"{name}@1"
    assert answer.parse().choices


#: Where images and text meet: the base, and what is trained of it.
FUSED: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "early": (write_qwen2_vl, {"lora_rank": 8}),
    "late": (write_clip, {"tuner": "full", "train_vision_tower": True, "train_projector": True}),
}


@pytest.mark.vllm
@pytest.mark.training
@pytest.mark.prove
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fusion", FUSED)
def test_images_with_texts_are_classified_at_an_endpoint_of_their_own(real: tuple[Pipeline, Run], fusion: str) -> None:
    classified_at_its_own_endpoint(real[0], fusion)


def classified_at_its_own_endpoint(running: Pipeline, fusion: str) -> None:
    """From an upload of images with texts to an answer about both."""
    folder, (write, told) = running.suite.folder / f"fused-{fusion}", FUSED[fusion]
    write_digits(folder, 0, ROWS)
    file, words = folder.with_suffix(".jsonl"), ("is it odd?", "is it even?")
    lines = [
        {"image": f"{number}.png", "text": words[number // 2 % 2], "label": ("yes", "no")[(number + number // 2) % 2]}
        for number in range(ROWS)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task_type = "image-text-classification"
    rows = running.client.datasets.upload(name=folder.name, path=file, task_type=task_type, assets=folder)
    base = running.client.models.import_folder(f"{fusion}-base", write(running.suite.folder / f"{fusion}-base"))
    told = {"max_steps": 8, "batch_size": 8, "learning_rate": 3e-3, "fusion": fusion, **told}
    job = running.client.train(dataset=rows.name, model=folder.name, base=base.name, task_type=task_type, **told)
    run = running.follow(job.name)
    promoted_and_the_same(run)
    assert run.evaluation.report.rows_scored >= 30 and not run.evaluation.report.rows_failed
    picture = base64.b64encode((folder / "4.png").read_bytes()).decode()
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]
    asked = {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": words[0]}]}]}
    with httpx.Client(base_url=running.suite.state["http"], trust_env=False, timeout=60) as client:
        headers = {"authorization": f"Bearer {running.suite.key}"}
        answer = client.post("/v1/classify", json={"model": folder.name, **asked}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert short(answer.headers["x-sluice-version"]) == f"{folder.name}@1"
    (found,) = answer.json()["data"]
    assert found["label"] in ("yes", "no") and sum(found["probs"]) == pytest.approx(1.0, abs=1e-4)


def reward_model(running: Pipeline, max_length: int) -> str:
    """The short name of a version that scores answers."""
    file = running.suite.folder / "tastes.jsonl"
    file.write_text("".join(json.dumps(pair(number)) + "\n" for number in range(ROWS)))
    rows = running.client.datasets.upload(name="tastes", path=file, task_type="rm")
    wanted: dict[str, Any] = {"max_steps": 2, "max_length": max_length, "gate_policy": "baseline"}
    job = running.client.train(dataset=rows.name, model="taste", base="base@1", task_type="rm", **wanted)
    return short(running.follow(job.name).version.name)


def promoted_and_the_same(run: Run) -> None:
    """The gate passed it, it serves, and the engine gives what the recipe gave."""
    assert run.job.state == types.JOB_STATE_SUCCEEDED, run.job.failure
    assert run.version.gate_decision.verdict == registry.VERDICT_PASS, run.version.gate_decision.reasons
    assert run.rollout and run.rollout.state == gateway.ROLLOUT_STATE_PROMOTED, run.rollout
    parity = run.evaluation.report.parity
    assert parity.passed and parity.prompts == parity.equal_prompts > 0, parity
