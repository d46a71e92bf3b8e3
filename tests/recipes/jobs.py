"""Builds job directories for the recipe tests and reads what a recipe left in them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LABELS = ("card_lost", "loan_question", "fee_question")
SHAPE = {
    "hidden_size": 32,
    "layers": 1,
    "heads": 2,
    "kv_heads": 1,
    "vocab_size": 400,
    "max_position_embeddings": 128,
}


def texts(count: int = 60) -> list[dict[str, Any]]:
    return [{"text": f"Row {i}: the bank keeps {LABELS[i % 3]} apart, 银行{i}."} for i in range(count)]


def conversations(count: int = 48) -> list[dict[str, Any]]:
    asked = ("where is my card", "may I borrow money", "why this fee")
    return [
        {
            "messages": [
                {"role": "user", "content": f"{asked[i % 3]} {i}?"},
                {"role": "assistant", "content": LABELS[i % 3]},
            ]
        }
        for i in range(count)
    ]


ASKED = ("where is my card", "may I borrow money", "why this fee")


def preferences(start: int = 0, count: int = 48) -> list[dict[str, Any]]:
    """Each question with its queue and another one, which one changing from row to row."""
    return [
        {
            "prompt": [{"role": "user", "content": f"{ASKED[i % 3]} {i}?"}],
            "chosen": [{"role": "assistant", "content": LABELS[i % 3]}],
            "rejected": [{"role": "assistant", "content": LABELS[(i + 1 + i // 3 % 2) % 3]}],
        }
        for i in range(start, start + count)
    ]


def feedback(start: int = 0, count: int = 48) -> list[dict[str, Any]]:
    """The rows of `preferences`, by turns the good answer alone and the bad one alone."""
    return [
        {"prompt": row["prompt"], "completion": row["chosen" if i % 2 else "rejected"], "label": bool(i % 2)}
        for i, row in enumerate(preferences(start, count))
    ]


def make_job(
    folder: Path,
    recipe: str,
    parameters: dict[str, Any],
    rows: Iterable[dict[str, Any]],
    *,
    base: Path | None = None,
    validation: Iterable[dict[str, Any]] = (),
) -> Path:
    (folder / "in").mkdir(parents=True)
    spec = {
        "job": "projects/default/trainingJobs/1",
        "attempt": 1,
        "task_type": recipe,
        "recipe": recipe,
        "seed": 42,
        "parameters": parameters,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    write_rows(folder / "in" / "train.jsonl", rows)
    if held_out := list(validation):
        write_rows(folder / "in" / "validation.jsonl", held_out)
    if base is not None:
        shutil.copytree(base, folder / "in" / "base")
    return folder


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def command(folder: Path, word: str) -> None:
    (folder / "control.json").write_text(json.dumps({"command": word}))


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def run_recipe(recipe: str, job: Path) -> dict[str, Any]:
    """What a process of its own leaves, with what it said."""
    done = subprocess.run(
        [sys.executable, "-m", f"services.trainer.recipes.{recipe}", str(job)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    return {**result(job), "said": done.stderr, "rc": done.returncode}


def progress(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (folder / "progress.jsonl").read_text("utf-8").splitlines())
    return [line for line in lines if line["kind"] == kind]


def digests(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
