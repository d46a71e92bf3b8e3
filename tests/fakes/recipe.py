"""A recipe without torch that keeps the file contract: `python recipe.py JOBDIR`.

The seed says what it does: 0 runs through; 1 waits at step 5 of the first attempt; 2 waits from there on, always;
3 fails; 4 leaves no result; 5 waits so and hears nothing; 6 needs rows and base, and repeats them in its weights.
"""

import json
import os
import sys
import time
from pathlib import Path

STOP_AT = 5


def main(folder: Path) -> int:
    spec = json.loads((folder / "spec.json").read_text())
    seed, steps = spec["seed"], spec["parameters"]["optimization"]["max_steps"]
    print(f"pid {os.getpid()} attempt {spec['attempt']} environ {sorted(os.environ)}", flush=True)  # noqa: T201
    done = resume(folder)
    report(folder, kind="phase", message="training", step=done, total_steps=steps)
    if seed == 3:
        return end(folder, "failed", error={"reason": "DIVERGED", "message": "the loss is no longer a number"})
    if seed == 4:
        return 7
    for step in range(done + 1, steps + 1):
        report(folder, kind="step", step=step, total_steps=steps, loss=1 / step)
        checkpoint = folder / "checkpoints" / f"checkpoint-{step}"
        checkpoint.mkdir(exist_ok=True)
        while step >= STOP_AT and (seed in (2, 5) or (seed == 1 and spec["attempt"] == 1)):
            command = commanded(folder)
            if command and seed != 5:
                return end(folder, {"pause": "paused", "cancel": "cancelled"}[command])
            time.sleep(0.01)
    report(folder, kind="phase", message="saving")
    save(folder, seed)
    return end(folder, "succeeded", artifact={"kind": "full", "path": "out/model"})


def resume(folder: Path) -> int:
    done = max((int(each.name[11:]) for each in (folder / "checkpoints").glob("checkpoint-*")), default=0)
    if done:
        report(folder, kind="phase", message=f"resuming from checkpoint-{done}")
    return done


def commanded(folder: Path) -> str:
    try:
        return json.loads((folder / "control.json").read_text())["command"]
    except FileNotFoundError:
        return ""


def report(folder: Path, **line: object) -> None:
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), **line}) + "\n")


def save(folder: Path, seed: int) -> None:
    (folder / "out" / "model").mkdir(parents=True)
    weights = b"weights"
    if seed == 6:
        inside = [path for path in sorted((folder / "in").rglob("*")) if path.is_file()]
        weights = b"".join(path.read_bytes() for path in inside)
    (folder / "out" / "model" / "model.safetensors").write_bytes(weights)
    parity = {"prompt": "row content", "of": str(folder) if seed == 6 else ""}
    (folder / "parity.jsonl").write_text(json.dumps(parity) + "\n")


def end(folder: Path, outcome: str, **fields: object) -> int:
    result = {"outcome": outcome, "metrics": {"final_loss": 0.5}, "environment": {"seed": "0"}, **fields}
    result |= {"settings": {"learning_rate": "0.1"}, "packages": ["torch==2"]}
    (folder / "result.json").write_text(json.dumps(result))
    return int(outcome == "failed")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
