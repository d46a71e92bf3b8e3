"""The job directory: the files through which a recipe and its agent talk; knows no task and no torch.

Given: `spec.json`, `in/train.jsonl`, perhaps `in/validation.jsonl`, `in/base/` and other models, each a folder;
where a model is an adapter, `in/NAME-adapter/` is that and `in/NAME/` its base. `control.json` at any time.
Written: `progress.jsonl`, `checkpoints/`, `out/model/`, `parity.jsonl` and, last, `result.json`.
"""

import contextlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from services.trainer.recipes.distributed.ranks import own_rank, record
from services.trainer.recipes.job.environment import describe_environment, installed, lock_digest, process_age_s
from services.trainer.recipes.job.failures import BadInput, RecipeError, explain
from services.trainer.recipes.job.memory import Peaks

Row = TypeVar("Row")


@dataclass(frozen=True)
class Spec:
    """`spec.json`; `parameters` are the recipe message's fields, absent or 0 for the recipe's default."""

    job: str
    attempt: int
    task_type: str
    recipe: str
    seed: int
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: succeeded, paused, cancelled or failed; `artifact` only where it succeeded."""

    outcome: str
    metrics: dict[str, float] = field(default_factory=dict)
    artifact: dict[str, str] | None = None
    error: dict[str, str] | None = None


@dataclass(frozen=True)
class JobDir:
    """The paths of one job, and the few ways to read and write them.

    `notes` are facts that turn up on the way: in `result.json` numbers stand among the metrics, words with the
    environment. `settings` are what it was trained with, the recipe's own defaults among them. `ranks` is what each
    process held, where there are several; of these one `leads`, which alone writes for people.
    """

    path: Path
    notes: dict[str, float | str] = field(default_factory=dict, compare=False, repr=False)
    settings: dict[str, str | float | None] = field(default_factory=dict, compare=False, repr=False)
    peaks: Peaks = field(default_factory=Peaks, compare=False, repr=False)
    ranks: list[dict[str, Any]] = field(default_factory=list, compare=False, repr=False)

    @property
    def leads(self) -> bool:
        return own_rank() == 0

    @property
    def base(self) -> Path:
        return self.model("base")

    def model(self, role: str) -> Path:
        return self.path / "in" / role

    @property
    def train_rows(self) -> Path:
        return self.path / "in" / "train.jsonl"

    @property
    def validation_rows(self) -> Path:
        return self.path / "in" / "validation.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def out_model(self) -> Path:
        return self.path / "out" / "model"

    @property
    def parity(self) -> Path:
        return self.path / "parity.jsonl"

    def held_out(self, read: Callable[[Path], list[Row]], most: int | None = None) -> list[Row]:
        """The first rows that nothing is learned from; none where there are none."""
        return read(self.validation_rows)[:most] if self.validation_rows.exists() else []

    def spec(self, *recipes: str) -> Spec:
        """`spec.json`. Raises BadInput where it is missing, lacks a field, or asks for none of `recipes`."""
        file = self.path / "spec.json"
        if not file.is_file():
            raise BadInput("The job directory has no spec.json.")
        try:
            given = json.loads(file.read_text("utf-8"))
            spec = Spec(**{name: given[name] for name in Spec.__dataclass_fields__})
        except (ValueError, TypeError) as error:
            raise BadInput("spec.json is not a JSON object.") from error
        except KeyError as error:
            raise BadInput(f"spec.json lacks the field {error.args[0]!r}.") from error
        if recipes and spec.recipe not in recipes:
            raise BadInput(f"spec.json asks for the recipe {spec.recipe!r}; this is {', '.join(recipes)}.")
        return spec

    def command(self) -> str | None:
        """What the agent wants: `pause`, `cancel` or nothing; a half-written file is read a step later."""
        try:
            command = json.loads((self.path / "control.json").read_text("utf-8")).get("command")
        except (OSError, ValueError, AttributeError):
            return None
        return command if command in ("pause", "cancel") else None

    def report(self, kind: str, **figures: Any) -> None:
        """Append a line to `progress.jsonl`, visible to a reader when this returns."""
        if kind == "phase":
            self.peaks.phase(str(figures.get("message")))
        if not self.leads:
            return
        line = {"time": time.time(), "kind": kind, **{k: v for k, v in figures.items() if v is not None}}
        with (self.path / "progress.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def fresh_out(self) -> Path:
        """An empty `out/model/`; what an earlier attempt left half-written is gone."""
        shutil.rmtree(self.out_model, ignore_errors=True)
        self.out_model.mkdir(parents=True)
        return self.out_model


def run_recorded(folder: Path, train: Callable[[JobDir], Outcome]) -> int:
    """Call `train` and leave its end in `result.json`, the last file written; returns the exit status.

    What the recipe can explain goes to stderr, which is the job's log, as a sentence, anything else as a traceback.
    """
    job = JobDir(folder)
    if not folder.is_dir():
        sys.stderr.write(f"The job directory {folder} does not exist.\n")
        return 2
    with contextlib.suppress(FileNotFoundError):
        record(folder).unlink()  # of the attempt before this one
    try:
        outcome = train(job)
    except Exception as error:
        if isinstance(error, RecipeError):
            sys.stderr.write(f"error: {error}\n")
        else:
            traceback.print_exc()
        outcome = Outcome("failed", error=asdict(explain(error)))
    write_atomically(record(folder), json.dumps(_result(job, outcome), indent=1))
    return 1 if outcome.outcome == "failed" else 0


def _result(job: JobDir, outcome: Outcome) -> dict[str, Any]:
    try:
        seed = job.spec().seed
    except BadInput:
        seed = None
    words = {name: note for name, note in job.notes.items() if isinstance(note, str)}
    numbers = {name: note for name, note in job.notes.items() if not isinstance(note, str)}
    metrics = {**outcome.metrics, **numbers, "wall_s": process_age_s(), **job.peaks.figures()}
    packages = installed() if outcome.outcome == "succeeded" else []
    lock = {"lock": lock_digest(packages)} if packages else {}
    return {
        **asdict(outcome),
        "metrics": {k: round(v, 6) for k, v in metrics.items()},
        "environment": {**describe_environment(seed), **lock, **words},
        "settings": {name: json.dumps(value, ensure_ascii=False) for name, value in sorted(job.settings.items())},
        "packages": packages,
        "ranks": job.ranks,
    }


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a part, also after a power cut."""
    draft = path.with_name(path.name + ".part")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
