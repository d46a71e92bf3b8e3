"""Jobs that several processes share: how they are started, and that they leave what one process leaves."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import services
from tests.recipes.bert import classified, fitting, named
from tests.recipes.jobs import conversations, feedback, make_job, preferences, progress, result, texts

ROOT = Path(services.__file__).parents[1]
#: The module of each recipe that has another name.
MODULES = {"rm": "reward", **dict.fromkeys(("dpo", "orpo", "cpo", "simpo"), "preference")}
#: Of one device; several that have rows of their own take their share each.
BATCH = 8
#: Numbers that a process may hold above its share, or below, as tensors are cut into whole rows.
SPARE = 200

KINDS: dict[str, dict[str, Any]] = {
    "ddp": {"sharding": "SHARDING_DDP"},
    "zero1": {"sharding": "SHARDING_ZERO1"},
    "zero2": {"sharding": "SHARDING_ZERO2"},
    "zero3": {"sharding": "SHARDING_ZERO3"},
    "zero2-offload": {"sharding": "SHARDING_ZERO2", "offload_optimizer": True},
    "zero3-offload": {"sharding": "SHARDING_ZERO3", "offload_optimizer": True, "offload_weights": True},
    "fsdp": {"sharding": "SHARDING_FSDP"},
    "tensor": {"tensor_parallel_size": 2},
    "ulysses": {"sequence_parallel_size": 2},
    "ulysses-zero3": {"sequence_parallel_size": 2, "sharding": "SHARDING_ZERO3"},
    "ulysses-fsdp": {"sequence_parallel_size": 2, "sharding": "SHARDING_FSDP"},
    "zero3-of-4": {"devices": 4, "sharding": "SHARDING_ZERO3"},
    "fsdp-of-4": {"devices": 4, "sharding": "SHARDING_FSDP"},
    "ulysses-zero3-of-4": {"devices": 4, "sequence_parallel_size": 2, "sharding": "SHARDING_ZERO3"},
    "ulysses-fsdp-of-4": {"devices": 4, "sequence_parallel_size": 2, "sharding": "SHARDING_FSDP"},
}


def of_all_lengths(count: int = 48) -> list[dict[str, Any]]:
    """Conversations whose answers grow, so that each batch has a length of its own."""
    rows = conversations(count)
    for i, row in enumerate(rows):
        row["messages"][1]["content"] += " now" * (i // 6)
    return rows


def unlike(count: int = 48) -> list[dict[str, Any]]:
    """Pairs of answers, of which no two processes have as many tokens."""
    rows = preferences(count=count)
    for i, row in enumerate(rows):
        row["chosen"][0]["content"] += " now" * (i // 6)
    return rows


def some_negatives(count: int = 48) -> list[dict[str, Any]]:
    """Queries with what fits them, of which only some have negatives, so that processes have not as many documents."""
    rows = fitting(count=count)
    for i, row in enumerate(rows):
        row["negatives"] *= i % 3 != 0
    return rows


ROWS = {
    **{"sft": of_all_lengths, "pretrain": texts, "kto": feedback, "embedding": some_negatives, "reranker": fitting},
    **{"sequence_classification": classified, "token_classification": named},
    **dict.fromkeys(("dpo", "orpo", "cpo", "simpo", "rm"), unlike),
}


def job_on(base: Path, folder: Path, recipe: str, devices: int = 1, **parameters: Any) -> Path:
    """A job of few updates, each of BATCH rows; `devices` have rows of their own."""
    given: dict[str, Any] = {
        "optimization": {"learning_rate": 0.01, "batch_size": BATCH // devices, "max_steps": 4},
        "checkpoint_every_steps": 2,
        "max_length": 32 if recipe == "pretrain" else 128,
        **({} if "lora" in parameters else {"full": {}}),
        **parameters,
    }
    return make_job(folder, recipe, given, ROWS[recipe](), base=base, validation=ROWS[recipe](count=BATCH))


def launch(job: Path) -> "subprocess.Popen[bytes]":
    """The recipe of a job as the agent starts it; it takes a thread for each rank."""
    spec = json.loads((job / "spec.json").read_text())
    devices = spec["parameters"].get("distribution", {}).get("devices", 2)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(devices)}
    name = MODULES.get(spec["recipe"], spec["recipe"])
    module = [sys.executable, "-m", f"services.trainer.recipes.{name}", str(job)]
    shared = [sys.executable, "-m", "services.trainer.recipes.distributed.ranks", *module]
    with (job / "log.txt").open("ab") as log:
        return subprocess.Popen(shared if "distribution" in spec["parameters"] else module, env=environ, stderr=log)


def train(job: Path) -> dict[str, Any]:
    """What a job's processes leave as its result."""
    process = launch(job)
    try:
        status = process.wait()
    finally:
        process.kill()
    assert status == 0, (job / "log.txt").read_text()[-4000:]
    return result(job)


class Alone:
    """Jobs that one process trained, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Path] = {}

    def __call__(self, base: Path, recipe: str, **parameters: Any) -> Path:
        from services.trainer.recipes.job.jobdir import run_recorded

        if (key := json.dumps([str(base), recipe, parameters])) not in self._made:
            job = self._made[key] = job_on(base, self._folder / str(len(self._made)), recipe, **parameters)
            module = import_module(f"services.trainer.recipes.{MODULES.get(recipe, recipe)}")
            assert run_recorded(job, module.train) == 0, result(job)["error"]
        return self._made[key]


def check_same(job: Path, other: Path) -> None:
    """The same losses and gradients, and files with the same weights."""
    from safetensors.torch import load_file

    for figure in ("loss", "grad_norm"):
        said, expected = ([line[figure] for line in progress(each, "step")] for each in (job, other))
        assert said == pytest.approx(expected, abs=1e-5), figure
    found, expected = ([line["loss"] for line in progress(each, "eval") if "loss" in line] for each in (job, other))
    assert found == pytest.approx(expected, rel=0.02)  # a mean over batches, which are others
    files = sorted(file.name for file in (other / "out" / "model").glob("*.safetensors"))
    assert files == sorted(file.name for file in (job / "out" / "model").glob("*.safetensors"))
    for name in files:
        ours, theirs = (load_file(each / "out" / "model" / name) for each in (job, other))
        assert ours.keys() == theirs.keys()
        for key, weight in theirs.items():
            if key.endswith("key.bias"):
                continue  # attention does not depend on it: its gradient is rounding, of which Adam makes a whole step
            assert (ours[key] - weight).abs().max().item() < 1e-5, key


def check_held(said: dict[str, Any], kind: str) -> None:
    """By the result of a job each process held the share that its kind leaves it."""
    told, ranks = KINDS[kind], said["ranks"]
    engine = "tensor" if kind == "tensor" else told.get("sharding", "ddp").removeprefix("SHARDING_").lower()
    stage = int(engine[-1]) if engine.startswith("zero") else 0
    named = {"ddp": "DistributedDataParallel", "fsdp": "FSDP", "tensor": "Qwen3"}.get(engine, "DeepSpeedEngine")
    whole, devices = ranks[0]["model_weights"], len(ranks)
    share = whole // devices
    trained = int(said["metrics"]["trainable_parameters"]) // (1 if engine == "ddp" else devices)
    assert [each["rank"] for each in ranks] == list(range(devices))
    assert len({each["process_id"] for each in ranks}) == devices == told.get("devices", 2)
    assert len({each["first_batch"] for each in ranks}) == (1 if kind == "tensor" else devices)
    for each in ranks:
        assert each["engine"].startswith(named) and each["zero_stage"] == stage
        # A norm is too small to be shared by tensor parallelism, a single row by FSDP.
        weights = whole if engine in ("ddp", "zero1", "zero2") else share
        assert abs(each["weights"] - weights) <= SPARE, each
        assert abs(each["optimizer_states"] - 2 * trained) <= 2 * SPARE, each
        assert 0 < each["gradients"] <= (whole if engine == "ddp" else share + SPARE), each
        parts = told.get("sequence_parallel_size", 1)
        assert each["sequence_length"] * parts == each["row_length"] > 0
