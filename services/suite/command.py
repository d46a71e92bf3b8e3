"""``up``, ``down`` and ``status`` of the suite on this machine."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from kit.bus import find_binary
from kit.rpc.errors import Fault
from services.suite.home import MARK, Home, SuiteError, is_alive
from services.suite.processes import Spec, Supervisor, end_marked, spawn
from services.suite.programs import PROGRAMS, chosen, import_shared, specs

READY_S = 60.0
STOPPED_S = 60.0


@dataclass
class State:
    """What the state file tells about a suite."""

    address: str
    http: str
    ports: dict[str, int]
    programs: list[str]
    pid: int = 0
    processes: dict[str, int] = field(default_factory=dict)


def main(
    arguments: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    modules: Mapping[str, str] = PROGRAMS,
) -> None:
    """Parses the command line; every mistake ends in one sentence and a non-zero exit.

    ``modules`` has the module of each process, whose ``main`` it runs.
    """
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status"):
        command = commands.add_parser(name)
        command.add_argument("--home", type=Path, default=Path(environ.get("SLUICE_HOME") or ".sluice"))
        command.add_argument("--json", action="store_true", help="one JSON object instead of text")
        if name == "up":
            command.add_argument("--grpc-port", type=int, default=7500, help="the public gRPC port; 0 takes a free one")
            command.add_argument("--http-port", type=int, default=8080, help="the public HTTP port; 0 takes a free one")
            command.add_argument("--detach", action="store_true", help="return when the suite is ready")
            command.add_argument("--only", default="", help="start only these processes, joined by commas")
    options = parser.parse_args(arguments)
    options.modules = modules
    home = Home(options.home.resolve(), dict(environ))
    try:
        sys.exit({"up": up, "down": down, "status": status}[options.command](home, options))
    except (SuiteError, Fault) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: `{error.filename or home.path}`: {error.strerror}; free disk space or correct its rights")


def up(home: Home, options: argparse.Namespace) -> int:
    """Starts everything; in the foreground until Ctrl-C, or with ``--detach`` until it is ready."""
    programs = chosen(options.only)
    if not home.own_nats:
        find_binary()
    home.prepare()
    ports = home.ports(options.grpc_port, options.http_port)
    address, http = f"127.0.0.1:{ports['gateway']}", f"http://127.0.0.1:{ports['http']}"
    home.keep_credentials(address, http)
    secret, sha256 = home.first_key(address, http)
    state = State(address, http, ports, programs)
    processes = specs(home, programs, ports, sha256, options.modules)
    if options.detach:
        return _detach(home, state, processes, secret, options.json)
    return _run(home, state, processes, partial(_announce, state, secret, options.json))


def _run(home: Home, state: State, processes: Sequence[Spec], announce: Callable[[], None]) -> int:
    def keep(pids: Mapping[str, int]) -> None:
        state.processes = dict(pids)
        home.write_state(asdict(state))

    os.umask(0o077)  # what libraries and children write is the owner's alone, also in a copy of the home
    state.pid = os.getpid()
    keep({})
    supervisor = Supervisor(processes, keep)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        import_shared()
        supervisor.start_all()
        if why := _await_ready(home, state, supervisor):
            supervisor.stop_all()
            raise SuiteError(why)
        announce()
        supervisor.run()
    except KeyboardInterrupt:
        supervisor.stop_all()
    finally:
        end_marked(MARK, str(home.path))
        state.pid = 0
        keep({})
    return 0


def _await_ready(home: Home, state: State, supervisor: Supervisor) -> str:
    """Returns when all serve, with why they do not as soon as that is sure; empty when they do."""
    logs = home.path / "logs"
    probe = spawn(Spec("ready", partial(_probe, state.ports, state.programs), logs / "suite.log"))
    while True:
        done, result = os.waitpid(probe, os.WNOHANG)
        if done:
            late = f"not every service came up within {READY_S:.0f} s; `{logs}` says why"
            return late if os.waitstatus_to_exitcode(result) else ""
        if name := supervisor.ended():
            os.kill(probe, signal.SIGKILL)
            os.waitpid(probe, 0)
            return f"`{name}` ended while the suite started{_last_error(logs / f'{name}.log')}"
        time.sleep(0.02)


def _probe(ports: dict[str, int], programs: list[str]) -> None:
    """In a process of its own, as gRPC must not start in one that forks."""
    import asyncio

    from services.suite.probe import wait_until_serving

    sys.exit(0 if asyncio.run(wait_until_serving(ports, programs, READY_S)) else 1)


def _last_error(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    said = lines[-1].removeprefix("error: ") if lines and lines[-1].startswith("error: ") else ""
    return f": {said}" if said else f"; `{log}` says why"


def _announce(state: State, secret: str, as_json: bool, stop: str = "Ctrl-C stops it.") -> None:
    if as_json:
        _say(json.dumps({"address": state.address, "http": state.http, "first_key": secret or None}))
        return
    _say("Sluice is up.")
    _say(f"  gRPC    {state.address}")
    _say(f"  OpenAI  {state.http}/v1")
    if secret:
        _say(f"  key     {secret}  (administrator of everything; kept for you in the credentials file, shown only now)")
    _say(stop)


def _detach(home: Home, state: State, processes: Sequence[Spec], secret: str, as_json: bool) -> int:
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(read)
        os.setsid()
        log = os.open(home.path / "logs" / "suite.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (1, 2):
            os.dup2(log, number)
        code = 1
        try:
            code = _run(home, state, processes, lambda: _tell(write, "ready"))
        except SuiteError as error:
            _tell(write, str(error))
        finally:
            os._exit(code)
    os.close(write)
    if (said := os.read(read, 4096).decode()) != "ready":
        raise SuiteError(said or f"the suite did not come up; `{home.path}/logs` says why")
    _announce(state, secret, as_json, stop=f"`sluice down --home {home.path}` stops it.")
    return 0


def _tell(pipe: int, text: str) -> None:
    os.write(pipe, text.encode())
    os.close(pipe)


def down(home: Home, options: argparse.Namespace) -> int:
    """Stops the suite and waits for it."""
    if not home.is_held():
        _say(json.dumps({"stopped": False}) if options.json else f"no suite runs in `{home.path}`")
        return 0
    pid = home.state().get("pid", 0)
    if pid and is_alive(pid):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOPPED_S
    while time.monotonic() < deadline:
        if not home.is_held():
            _say(json.dumps({"stopped": True}) if options.json else "stopped")
            return 0
        time.sleep(0.05)
    left = " ".join(str(each) for each in [pid, *home.state().get("processes", {}).values()] if each and is_alive(each))
    raise SuiteError(f"the suite did not stop within a minute; `kill -9 {left}` ends it, nothing accepted is lost")


def status(home: Home, options: argparse.Namespace) -> int:
    """Says what runs; exit 1 when something does not."""
    import asyncio

    from services.suite.probe import serving

    state = home.state() if home.is_held() else {}
    if not state.get("pid") or not is_alive(state["pid"]):
        text = f"no suite runs in `{home.path}`; `sluice up` starts it"
        _say(json.dumps({"running": False}) if options.json else text)
        return 1
    answers = asyncio.run(serving(state["ports"], state["programs"]))
    rows = {
        name: {"pid": pid, "alive": is_alive(pid), "serving": answers.get(name)}
        for name, pid in (dict.fromkeys(state["programs"], 0) | state["processes"]).items()
    }
    if options.json:
        _say(json.dumps({"running": True, "address": state["address"], "http": state["http"], "processes": rows}))
    for name, row in {} if options.json else rows.items():
        word = "running" if row["serving"] is None else "serving" if row["serving"] else "NOT SERVING"
        _say(f"{name:15} {row['pid']:>8}  {word if row['alive'] else 'DEAD'}")
    return 0 if all(row["alive"] and row["serving"] is not False for row in rows.values()) else 1


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
