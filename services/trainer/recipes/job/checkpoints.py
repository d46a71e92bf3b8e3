"""Which checkpoints are whole; knows no trainer and no torch."""

import json
import shutil
from pathlib import Path

from services.trainer.recipes.job.jobdir import sync, write_atomically

SEAL = "COMPLETE.json"


def seal(checkpoint: Path) -> None:
    """Mark a checkpoint as whole: every file is on the disk before the seal, which lists their sizes, is."""
    files = sorted(f for f in checkpoint.rglob("*") if f.is_file() and f.name != SEAL)
    for file in files:
        sync(file)
    sync(checkpoint)
    sizes = {str(f.relative_to(checkpoint)): f.stat().st_size for f in files}
    write_atomically(checkpoint / SEAL, json.dumps(sizes, indent=1))
    sync(checkpoint.parent)


def is_whole(checkpoint: Path) -> bool:
    """Whether the seal is there and every file it lists has its size."""
    try:
        sizes: dict[str, int] = json.loads((checkpoint / SEAL).read_text("utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def newest(checkpoints: Path) -> Path | None:
    """The whole checkpoint with the most steps; folders that are not whole are removed."""
    best: tuple[int, Path] | None = None
    for folder in checkpoints.glob("checkpoint-*"):
        if not is_whole(folder):
            shutil.rmtree(folder)
            continue
        step = int(folder.name.removeprefix("checkpoint-"))
        if best is None or step > best[0]:
            best = (step, folder)
    return best[1] if best else None
