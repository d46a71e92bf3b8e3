"""A recipe without torch whose weights the fake engine serves: `python pipeline_recipe.py JOBDIR`.

Without a base it makes one, else an adapter. The seed says the rest: 0 an adapter that answers right; 1 one that
answers wrong; 10 and 11 the same, but the first attempt stops at step 5 until it is killed.
"""

import json
import sys
import time
from pathlib import Path

from tests.fakes.weights import write_adapter, write_model

STOP_AT = 5


def main(folder: Path) -> int:
    spec = json.loads((folder / "spec.json").read_text())
    steps = spec["parameters"]["optimization"]["max_steps"]
    done = max((int(each.name[11:]) for each in (folder / "checkpoints").glob("checkpoint-*")), default=0)
    if done:
        report(folder, kind="phase", message=f"resuming from checkpoint-{done}")
    report(folder, kind="phase", message="training", step=done, total_steps=steps)
    for step in range(done + 1, steps + 1):
        report(folder, kind="step", step=step, total_steps=steps, loss=1 / step)
        (folder / "checkpoints" / f"checkpoint-{step}").mkdir(exist_ok=True)
        while step == STOP_AT and spec["seed"] >= 10 and spec["attempt"] == 1:
            time.sleep(0.01)
    report(folder, kind="phase", message="saving")
    kind = save(folder, spec)
    result = {"outcome": "succeeded", "metrics": {"final_loss": 0.5}, "environment": {"seed": str(spec["seed"])}}
    (folder / "result.json").write_text(json.dumps({**result, "artifact": {"kind": kind, "path": "out/model"}}))
    return 0


def save(folder: Path, spec: dict) -> str:
    """Weights that no other job has: versions are known by their digests."""
    if not (folder / "in" / "base").exists():
        write_model(folder / "out" / "model", fake_job=spec["job"])
        return "full"
    answer = "mute" if spec["seed"] % 2 else "echo"
    write_adapter(folder / "out" / "model", fake_answer=answer, fake_job=spec["job"])
    return "adapter"


def report(folder: Path, **line: object) -> None:
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), **line}) + "\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
