"""``plan_error_max``: how far the planner's memory is from what recipes held, each configuration in a fresh process.

``python benchmarks/planner.py --json``; models of 100 M parameters and more with random weights, trained by the recipe
itself on rows of full length. The twelve are those of supervised fine-tuning; the others have a figure of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started by its path and not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.figure import Figure  # noqa: E402
from benchmarks.planned_jobs import MODELS, make_jobs  # noqa: E402
from benchmarks.runner import Measures, run  # noqa: E402
from services.trainer.plan.answer import Place, plan  # noqa: E402
from services.trainer.plan.devices import Device  # noqa: E402

MOST = 0.15
TIME_LIMIT_S = 3600.0
QUICK = 3
#: The files in which recipes stand that have another name.
MODULES = {
    **dict.fromkeys(("dpo", "orpo", "cpo", "simpo"), "preference"),
    **dict.fromkeys(("grpo", "rloo"), "policy"),
    "gkd": "distillation",
    "rm": "reward",
}


@dataclass(frozen=True)
class Case:
    """One configuration; ``rank`` 0 is full training, ``beside`` the models it reads, ``own`` the recipe's fields."""

    model: str
    rank: int
    rows: int
    length: int
    checkpointing: bool
    recipe: str = "sft"
    beside: dict[str, str] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    performance: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Short, and one of a kind."""
        tuner = f"lora{self.rank}" if self.rank else "full"
        told = "".join(f"-{name}" for name in self.performance)
        return f"{self.recipe}-{self.model}-{tuner}-{self.rows}x{self.length}{'-ckpt' * self.checkpointing}{told}"

    @property
    def spec(self) -> dict[str, Any]:
        """The fields of a TrainingJobSpec."""
        tuner = {"lora": {"rank": self.rank}} if self.rank else {"full": {}}
        return {
            **tuner,
            "max_length": self.length,
            "optimization": {"batch_size": self.rows, "max_steps": 2},
            "performance": {"gradient_checkpointing": self.checkpointing, **self.performance},
            self.recipe: self.own,
        }


CASES = (
    Case("138M", 16, 4, 256, True),
    Case("105M", 0, 2, 128, True),
    Case("llama", 16, 2, 256, False),
    Case("138M", 0, 1, 128, False),
    Case("105M", 8, 2, 512, True),
    Case("llama", 0, 2, 64, False),
    Case("138M", 64, 2, 128, False),
    Case("105M", 16, 1, 256, False),
    Case("llama", 0, 2, 512, True),
    Case("138M", 0, 8, 256, True),
    Case("105M", 0, 4, 256, True),
    Case("llama", 16, 4, 512, True),
)
ANSWERED = {"rewards": [{"length": {"at_least": 2}}]}
BEYOND = (
    Case("138M", 16, 4, 160, True, "grpo", own={**ANSWERED, "group_size": 4, "max_new_tokens": 32}),
    Case("138M", 16, 2, 224, False, "gkd", {"teacher": "138M"}, {"lmbda": 1.0, "max_new_tokens": 32}),
    Case("138M", 0, 2, 160, False, "ppo", own={**ANSWERED, "max_new_tokens": 32}),
    Case("bert", 0, 2, 256, False, "token_classification", own={"label_names": ["card", "loan"]}),
    Case("138M", 16, 1, 256, False, "dpo"),
    Case("138M", 0, 1, 256, True, "orpo"),
)


def predicted(case: Case) -> int:
    """What the planner says, in bytes."""
    beside = {role: MODELS[model] for role, model in case.beside.items()}
    place = Place(Device("cpu", "cpu", 0))
    return int(plan(MODELS[case.model], case.spec, case.recipe, place, beside=beside).memory.peak_bytes)


def figure(name: str, cases: Sequence[Case]) -> Any:
    """Measures the cases, one after the other, each in a process of its own."""

    def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
        errors: list[float] = []
        details: dict[str, float] = {}
        wanted = cases[:QUICK] if options.quick else cases
        prepare(wanted, folder)
        for case in wanted:
            measured, said = held(case, folder), predicted(case)
            errors.append(abs(said / measured["peak"] - 1))
            details |= {f"{case.name} {what}_mb": size / 1e6 for what, size in measured.items() if what != "start"}
            details |= {f"{case.name} predicted_mb": said / 1e6, f"{case.name} error": said / measured["peak"] - 1}
            sys.stderr.write(f"{case.name}: {said / 1e6:.0f} MB, measured {measured['peak'] / 1e6:.0f}\n")
        return [
            Figure(
                name=name,
                statistic="maximum",
                value=max(errors),
                low=max(errors),
                high=max(errors),
                n=len(errors),
                target=MOST,
                start="a recipe's process after its imports",
                end="its end after 2 updates and all its files: its resident peak, less its size at the start",
                beside="nothing of ours",
                details=details,
                note="Errors are predicted / measured - 1; random weights, rows of full length.",
            )
        ]

    return measure


def prepare(cases: Sequence[Case], folder: Path) -> None:
    """Leaves a job directory for each case below the folder, and their models once."""
    told = [
        {"name": c.name, "spec": c.spec, "recipe": c.recipe, "models": {"base": c.model, **c.beside}} for c in cases
    ]
    (folder / "cases.json").write_text(json.dumps(told), "utf-8")
    _run("--make", "all", folder)


def held(case: Case, folder: Path) -> dict[str, int]:
    """Bytes above those after the imports, at the most and in each phase, in the directory that `prepare` left."""
    said = _run("--case", case.recipe, folder / case.name)
    shutil.rmtree(folder / case.name)
    return {name: int(size) for name, size in json.loads(said).items()}


def _run(word: str, what: str, folder: Path) -> str:
    """The last line of a process of its own; its last argument is where recipes look for a job."""
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    command = [sys.executable, "-m", "benchmarks.planner", word, what, str(folder)]
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, timeout=TIME_LIMIT_S)
    if ran.returncode:
        raise RuntimeError(f"{word} {what} in {folder.name}: {ran.stderr.decode(errors='replace')[-2000:]}")
    return (ran.stdout.decode().splitlines() or [""])[-1]


def train(recipe: str, job: Path) -> dict[str, float]:
    """Runs the recipe in this process as its own command would; `start` is resident memory after the imports."""
    module = import_module(f"services.trainer.recipes.{MODULES.get(recipe, recipe)}")
    start = _resident()
    if module.run_recorded(job, module.train):
        raise RuntimeError("the recipe failed; see above")
    metrics = json.loads((job / "result.json").read_text("utf-8"))["metrics"]
    phases = {name: metrics[f"peak_rss_mb_{name}"] * 1e6 - start for name in ("load", "train", "save")}
    return {"start": start, "peak": metrics["peak_rss_mb"] * 1e6 - start, **phases}


def _resident() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


MEASURES: Measures = {
    ("plan_error_max",): figure("plan_error_max", CASES),
    ("plan_error_max_methods",): figure("plan_error_max_methods", BEYOND),
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(train(sys.argv[2], Path(sys.argv[3]))))
        sys.exit(0)
    if sys.argv[1:2] == ["--make"]:
        make_jobs(Path(sys.argv[3]))
        sys.exit(0)
    sys.exit(run(MEASURES))
