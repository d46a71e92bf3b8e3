"""The process that keeps the others running: what must not end it."""

import subprocess
import sys
from pathlib import Path

from services.suite.home import Home

ROOT = Path(__file__).resolve().parents[3]
FULL_DISK = """
import errno, os, signal, sys, time
from pathlib import Path
from services.suite.processes import Spec, Supervisor

refused = 3

def changed(pids):
    global refused
    refused -= 1
    if refused >= 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    print("told of", *pids, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

supervisor = Supervisor([Spec("sleeper", lambda: time.sleep(60), Path(sys.argv[1]))], changed)
supervisor.start_all()
supervisor.run()
print("stopped")
"""


def test_a_full_disk_ends_nothing_that_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "log")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "told of sleeper\nstopped\n"), done.stderr
    assert done.stderr == "the process ids cannot be written: No space left on device\n"


def test_the_first_key_is_made_once_and_its_hash_is_never_half_written(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")})
    (home.path / "run").mkdir(parents=True)
    secret, sha256 = home.first_key("127.0.0.1:1", "http://127.0.0.1:2")
    assert secret and len(sha256) == 64
    assert home.first_key("127.0.0.1:1", "http://127.0.0.1:2") == ("", sha256)
    (home.path / "run" / "first-key").unlink()
    (home.path / "run" / "first-key.new").write_text("")  # a start that died here is begun again
    assert home.first_key("127.0.0.1:1", "http://127.0.0.1:2")[0] not in ("", secret)
