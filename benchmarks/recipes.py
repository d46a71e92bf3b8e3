"""Recipes run bare, as the trainer's agent would start them but with nothing around them; it knows no figure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer.agent.recipe import ALLOWED, ALLOWED_PREFIXES

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "examples" / "bank-corpus.jsonl"
#: The toy base of the demo, trained for a moment: how well it answers matters to no figure.
SHAPE = {"hidden_size": 192, "layers": 4, "heads": 4, "kv_heads": 2, "vocab_size": 768, "max_position_embeddings": 512}
STEPS = {"learning_rate": 3e-3, "batch_size": 32, "max_steps": 20}


@dataclass(frozen=True)
class Ran:
    """One run of a recipe."""

    tokens_per_s: float
    #: From spawn, or from submission, until the first step was done.
    first_step_s: float
    threads: str


def make_base(folder: Path) -> Path:
    """Trains the toy base; returns the folder of the model."""
    spec = {"job": "base", "attempt": 1, "task_type": "pretrain", "recipe": "pretrain", "seed": 1}
    parameters = {"shape": SHAPE, "optimization": STEPS, "max_length": 64}
    (folder / "in").mkdir(parents=True)
    shutil.copy(CORPUS, folder / "in" / "train.jsonl")
    (folder / "spec.json").write_text(json.dumps({**spec, "parameters": parameters}))
    run(folder, "pretrain")
    return folder / "out" / "model"


def run(folder: Path, recipe: str) -> Ran:
    """Runs a recipe on its job directory; raises RuntimeError with the end of its log when it fails."""
    command = [sys.executable, "-m", f"services.trainer.recipes.{recipe}", str(folder)]
    with (folder / "log.txt").open("wb") as log:
        began = time.time()
        done = subprocess.run(command, cwd=ROOT, env=environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if done.returncode:
        raise RuntimeError(f"the recipe `{recipe}` failed: {(folder / 'log.txt').read_text()[-2000:]}")
    result = json.loads((folder / "result.json").read_text())
    return ran(folder, began, result["metrics"], result["environment"])


def ran(folder: Path, began: float, metrics: Mapping[str, float], environment: Mapping[str, str]) -> Ran:
    """What a run that began at ``began`` (epoch seconds) left in its folder."""
    return Ran(metrics["tokens_per_s"], first_step(folder)["time"] - began, environment["threads"])


def first_step(folder: Path) -> dict[str, Any]:
    """The progress line of the first step."""
    lines = map(json.loads, (folder / "progress.jsonl").read_text("utf-8").splitlines())
    return next(dict(line) for line in lines if line["kind"] == "step")


def environ() -> dict[str, str]:
    """What a recipe of the suite sees: its agent passes on no more, and as many threads as there are cores."""
    kept = {name: value for name, value in os.environ.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)}
    return {**kept, "OMP_NUM_THREADS": str(os.cpu_count()), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
