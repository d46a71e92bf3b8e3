"""One training of each side, as who measures it sees it: our recipe, TRL's trainer in a script, ms-swift's command."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import recipes

BATCH, RATE, LENGTH, SEED, RANK = 32, 5e-3, 512, 1, 32
SWIFT = ("ms-swift==4.6.0", "torch==2.13.0")
TIME_LIMIT_S = 900.0


@dataclass(frozen=True)
class Run:
    """One training; times are epoch seconds. ``ready`` is when it begins to read, after its imports."""

    spawned: float
    ready: float
    steps: Sequence[float]
    tokens: float
    peak_rss_mb: float
    losses: Sequence[float]

    @property
    def tokens_per_s(self) -> float:
        """Of the median step after the first: what else runs on the machine strikes some steps and not all."""
        took = [end - begin for begin, end in pairwise(self.steps)]
        return self.tokens / len(self.steps) / statistics.median(took)

    @property
    def whole_tokens_per_s(self) -> float:
        """From reading rows and base on: tokens have to be made, too."""
        return self.tokens / (self.steps[-1] - self.ready)

    @property
    def first_step_s(self) -> float:
        """From spawn."""
        return self.steps[0] - self.spawned


@dataclass(frozen=True)
class Data:
    """The base, as many rows as all steps take, and their tokens as our recipe counts them."""

    base: Path
    rows: list[str]
    tokens: float = 0.0

    @property
    def steps(self) -> int:
        """Updates in all."""
        return len(self.rows) // BATCH


def ours(folder: Path, data: Data, performance: Mapping[str, Any], tokens: Path | None = None) -> Run:
    """Our recipe on a job directory; ``tokens`` are those that the agent would have found."""
    (folder / "in").mkdir(parents=True)
    shutil.copytree(data.base, folder / "in" / "base")
    (folder / "in" / "train.jsonl").write_text("".join(data.rows), "utf-8")
    if tokens is not None:
        shutil.copytree(tokens, folder / "in" / "tokens")
    optimization = {"learning_rate": RATE, "batch_size": BATCH, "max_steps": data.steps, "warmup_ratio": 0.05}
    asked = {"lora": {"rank": RANK, "alpha": 2 * RANK}, "max_length": LENGTH, "optimization": optimization}
    spec = {"job": "ours", "attempt": 1, "task_type": "sft", "recipe": "sft", "seed": SEED}
    (folder / "spec.json").write_text(json.dumps({**spec, "parameters": {**asked, "performance": dict(performance)}}))
    spawned = time.time()
    recipes.run(folder, "sft")
    told = [json.loads(line) for line in (folder / "progress.jsonl").read_text("utf-8").splitlines()]
    phases = {line["message"]: line["time"] for line in told if line["kind"] == "phase"}
    steps = [line for line in told if line["kind"] == "step"]
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    times, losses = [line["time"] for line in steps], [line["loss"] for line in steps]
    peak = metrics["peak_rss_mb"]
    return Run(spawned, phases["reading"], times, metrics["tokens"], peak, losses)


def trl(folder: Path, data: Data, settings: Mapping[str, Any]) -> Run:
    """TRL's trainer, in a script of its own."""
    folder.mkdir(parents=True)
    shutil.copytree(data.base, folder / "base")
    (folder / "rows.jsonl").write_text("".join(data.rows), "utf-8")
    needed = {"max_steps": data.steps, "per_device_train_batch_size": BATCH, "seed": SEED, "use_cpu": True}
    quiet = {"report_to": "none", "disable_tqdm": True, "include_num_input_tokens_seen": "non_padding"}
    (folder / "settings.json").write_text(json.dumps({**needed, **quiet, **settings}))
    command = [sys.executable, str(recipes.ROOT / "benchmarks" / "trl_script.py"), str(folder)]
    spawned = time.time()
    told = json.loads(_output(command, folder).splitlines()[-1])
    return Run(spawned, told.pop("ready"), **told)


def swift(folder: Path, data: Data, python: Path) -> Run:
    """ms-swift by its own command; its steps are timed as it tells them."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(data.rows), "utf-8")
    told = {
        **{"model": data.base, "model_type": "qwen3", "template": "chatml", "tuner_type": "lora"},
        **{"lora_rank": RANK, "lora_alpha": 2 * RANK, "target_modules": "all-linear", "dataset": folder / "rows.jsonl"},
        **{"output_dir": folder / "out", "max_steps": data.steps, "per_device_train_batch_size": BATCH},
        **{"learning_rate": RATE, "max_length": LENGTH, "torch_dtype": "float32", "fp16": "false", "bf16": "false"},
        **{"gradient_checkpointing": "false", "logging_steps": 1, "save_strategy": "no", "report_to": "none"},
        **{"use_hf": "true", "dataloader_num_workers": 0, "split_dataset_ratio": 0, "seed": SEED},
    }
    words = [str(word) for name, value in told.items() for word in (f"--{name}", value)]
    spawned, steps = time.time(), []
    with subprocess.Popen(
        [str(python.parent / "swift"), "sft", *words],
        cwd=folder,
        env={**recipes.environ(), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            steps += [time.time()] * ("'grad_norm'" in line)  # a step is done
    if process.returncode or len(steps) != data.steps:
        raise RuntimeError(
            f"ms-swift ended with {process.returncode} after {len(steps)} steps: {''.join(lines)[-2000:]}"
        )
    return Run(spawned, spawned, steps, data.tokens, 0.0, ())


def swift_environment() -> Path:
    """The Python of ms-swift's environment, made where there is none, with its bytecode."""
    folder = Path(os.environ.get("SLUICE_SWIFT") or Path.home() / ".cache" / "sluice" / SWIFT[0].replace("==", "-"))
    python = folder / "bin" / "python"
    if not (folder / "bin" / "swift").is_file():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        links = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True
        ).stdout.split()
        found = ["--find-links", *links] if links else ["--torch-backend=cpu"]
        subprocess.run([*uv, "pip", "install", "-q", "--python", str(python), *found, *SWIFT], check=True)
    packages = subprocess.run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
                              capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    subprocess.run([str(python), "-m", "compileall", "-q", packages], capture_output=True)
    return python


def _output(command: Sequence[str], folder: Path) -> str:
    environ = {**recipes.environ(), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=TIME_LIMIT_S)
    if done.returncode:
        raise RuntimeError(f"{Path(command[1]).name} failed: {done.stderr[-2000:]}")
    return done.stdout
