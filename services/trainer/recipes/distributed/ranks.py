"""Runs a recipe as several processes: `python -m services.trainer.recipes.distributed.ranks COMMAND… JOBDIR`.

To whoever started it, it is the recipe: one process, one log, one `result.json`. The ranks die with it, and it with the
first of them: by the same signal where it was killed, as a recipe that was killed is one that vanished. It knows no
torch.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.trainer.distribution import Distribution

LEASH = Path(__file__).parents[2] / "agent" / "leash.py"
#: Where the ranks find each other and leave how they ended.
FOLDER = "ranks"
MEETING = "meeting"


def own_rank() -> int:
    """The place of this process among those of its recipe, from 0, which leads."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def record(folder: Path) -> Path:
    """The file in which this process leaves how it ended; that of a leader by itself is the job's."""
    return folder / FOLDER / f"{own_rank()}.json" if world() > 1 else folder / "result.json"


def main(command: list[str]) -> int:
    """Runs the command once for each device of the spec in its last argument; the exit status is that of a recipe."""
    folder = Path(command[-1])
    count = devices(folder / "spec.json")
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / FOLDER).mkdir()
    ranks = {_start(command, rank, count): rank for rank in range(count)}
    statuses: dict[int, int] = {}
    try:
        while ranks:
            process, status = os.wait()
            if process not in ranks:
                continue
            statuses[rank := ranks.pop(process)] = code = os.waitstatus_to_exitcode(status)
            if code < 0:
                return _lost(folder, rank, count, -code, ranks)
            if code:
                break
    finally:
        for process in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for process in ranks:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)
    failed = any(statuses.values())
    endings = [folder / FOLDER / f"{rank}.json" for rank in range(count)]
    ending = _first_failure(endings) if failed else endings[0]
    if ending is not None:
        ending.replace(folder / "result.json")
    shutil.rmtree(folder / FOLDER)
    return 1 if failed else 0


def devices(spec: Path) -> int:
    """How many processes a spec asks for; one where there is none that can be read, which the recipe will say."""
    try:
        return Distribution.of(json.loads(spec.read_text("utf-8"))["parameters"]).devices
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 1


def _start(command: list[str], rank: int, count: int) -> int:
    """The id of the process of a rank. It may use its share of the threads, and shares what its parent was given."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    told = {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)},
        **{"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": str(max(1, threads // count))},
        **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),  # nobody outside is to be heard
    }
    leash = (sys.executable, "-I", "-S", str(LEASH), str(os.getpid()))
    return subprocess.Popen([*leash, *command], env={**os.environ, **told}, close_fds=False).pid


def _lost(folder: Path, rank: int, count: int, signalled: int, others: dict[int, int]) -> int:
    """Ends by the signal that ended a rank; whoever looks into the folder finds why."""
    message = f"Process {rank} of {count} was killed ({signal.Signals(signalled).name}), so the others were ended."
    said = {"outcome": "failed", "error": {"reason": "INTERNAL", "message": message}}
    (folder / "result.json").write_text(json.dumps(said), "utf-8")
    sys.stderr.write(f"error: {message}\n")
    for process in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    os.kill(os.getpid(), signalled)
    return 128 + signalled  # where that signal ends nobody


def _first_failure(endings: list[Path]) -> Path | None:
    """How the rank failed that failed first: the others lost their connection to it, and say that they do not know."""
    failed: list[tuple[bool, float, Path]] = []
    for ending in endings:
        with contextlib.suppress(OSError, ValueError):
            said: dict[str, Any] = json.loads(ending.read_text("utf-8"))
            if said["outcome"] == "failed":
                failed.append((said["error"]["reason"] == "INTERNAL", ending.stat().st_mtime, ending))
    return min(failed)[2] if failed else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
