"""``up``, ``down`` and ``status`` of the suite on this machine."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from services.suite.home import Home, SuiteError, is_alive
from services.suite.processes import Spec, Supervisor, spawn

#: Every process of the suite and the module whose ``main`` it runs, in the order they start.
PROGRAMS = {
    "registry": "services.registry.__main__",
    "dataset": "services.dataset.__main__",
    "trainer": "services.trainer.__main__",
    "evaluator": "services.evaluator.__main__",
    "gateway": "services.gateway.__main__",
    "gateway-worker": "services.gateway.worker.__main__",
    "engine-host": "services.gateway.host.__main__",
}
#: Imported once, before the processes are forked off, so that they share the memory.
SHARED = (
    "kit.serve",
    "kit.blobs",
    "sluice.lifecycle",
    "sluice.gateway.v1",
    "sluice.trainer.v1",
    "sluice.evaluator.v1",
)
READY_S = 60.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line; every mistake ends in one sentence and a non-zero exit."""
    parser = argparse.ArgumentParser(prog="python -m services", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status"):
        command = commands.add_parser(name)
        command.add_argument("--home", type=Path, default=Path(os.environ.get("SLUICE_HOME") or ".sluice"))
        command.add_argument("--json", action="store_true", help="one JSON object instead of text")
        if name == "up":
            command.add_argument(
                "--grpc-port", type=int, default=7500, help="the public gRPC port; 0 takes a free one"
            )
            command.add_argument(
                "--http-port", type=int, default=8080, help="the public HTTP port; 0 takes a free one"
            )
            command.add_argument("--detach", action="store_true", help="return when the suite is ready")
    options = parser.parse_args(arguments)
    home = Home(options.home.resolve(), dict(os.environ))
    try:
        sys.exit({"up": up, "down": down, "status": status}[options.command](home, options))
    except SuiteError as error:
        sys.exit(f"error: {error}")


def up(home: Home, options: argparse.Namespace) -> int:
    """Starts everything; in the foreground until Ctrl-C, or with ``--detach`` until it is ready."""
    if is_alive(pid := home.state().get("pid", 0)) and pid:
        raise SuiteError(f"the suite in `{home.path}` runs already (process {pid}); `sluice down` stops it")
    home.prepare()
    ports = home.ports(options.grpc_port, options.http_port)
    address, http = f"127.0.0.1:{ports['gateway']}", f"http://127.0.0.1:{ports['http']}"
    home.keep_credentials(address, http)
    secret, sha256 = home.first_key(address, http)
    state = {"address": address, "http": http, "ports": ports, "pid": os.getpid(), "processes": {}}
    if options.detach:
        return _detach(home, state, sha256, secret, options)
    return _run(home, state, sha256, partial(_announce, state, secret, options.json))


def _run(home: Home, state: dict[str, object], sha256: str, announce: Callable[[], None]) -> int:
    home.write_state({**state, "pid": os.getpid()})
    supervisor = Supervisor(
        _specs(home, state, sha256), lambda pids: home.write_state({**state, "processes": dict(pids)})
    )
    state["pid"] = os.getpid()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for module in SHARED:
            importlib.import_module(module)
        supervisor.start_all()
        probe = spawn(
            Spec("ready", partial(_await_ready, dict(state["ports"])), home.path / "logs" / "suite.log")
        )  # type: ignore[call-overload]
        if _exit_code(probe) == 0:
            announce()
            supervisor.run()
            return 0
        supervisor.stop_all()
        raise SuiteError(f"not every service came up within {READY_S:.0f} s; `{home.path}/logs` says why")
    except KeyboardInterrupt:
        supervisor.stop_all()
        return 0
    finally:
        home.write_state({**state, "pid": 0, "processes": {}})


def _specs(home: Home, state: dict[str, object], sha256: str) -> list[Spec]:
    ports: dict[str, int] = state["ports"]  # type: ignore[assignment]
    logs = home.path / "logs"
    variables = {**home.variables(ports), "SLUICE_FIRST_KEY_SHA256": sha256}
    config, passwords = home.nats(ports["nats"])
    programs = [
        Spec(
            name,
            partial(_program, module, f"sluice {name}"),
            logs / f"{name}.log",
            {**variables, "SLUICE_NATS_PASSWORD": passwords.get(name, "")},
        )
        for name, module in PROGRAMS.items()
    ]
    return [Spec("nats", partial(_nats_server, config), logs / "nats.log"), *programs]


def _program(module: str, title: str) -> None:
    from setproctitle import setproctitle

    setproctitle(title)
    importlib.import_module(module).main()


def _nats_server(config: Path) -> None:
    from kit.bus import find_binary

    path = str(find_binary())
    os.execv(path, [path, "--config", str(config)])


def _await_ready(ports: dict[str, int]) -> None:
    """In a process of its own, as gRPC must not start in one that forks."""
    import asyncio

    from services.suite.probe import wait_until_serving

    sys.exit(0 if asyncio.run(wait_until_serving(ports, READY_S)) else 1)


def _exit_code(pid: int) -> int:
    while True:
        done, result = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(result)
        time.sleep(0.02)


def _announce(state: dict[str, object], secret: str, as_json: bool) -> None:
    if as_json:
        _say(json.dumps({"address": state["address"], "http": state["http"], "first_key": secret or None}))
        return
    _say("Sluice is up.")
    _say(f"  gRPC    {state['address']}")
    _say(f"  OpenAI  {state['http']}/v1")
    if secret:
        _say(
            f"  key     {secret}  (administrator of everything; kept for you in the credentials file, shown only now)"
        )
    _say("Ctrl-C stops it.")


def _detach(
    home: Home, state: dict[str, object], sha256: str, secret: str, options: argparse.Namespace
) -> int:
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
            code = _run(home, state, sha256, lambda: os.write(write, b"ready") and None)
        except SuiteError as error:
            _say(f"error: {error}")
        finally:
            os._exit(code)
    os.close(write)
    if os.read(read, 5) != b"ready":
        raise SuiteError(f"the suite did not come up; `{home.path}/logs` says why")
    _announce(state, secret, options.json)
    return 0


def down(home: Home, options: argparse.Namespace) -> int:
    """Stops the suite and waits for it."""
    pid = home.state().get("pid", 0)
    if not pid or not is_alive(pid):
        _say(json.dumps({"stopped": False}) if options.json else f"no suite runs in `{home.path}`")
        return 0
    os.kill(pid, signal.SIGTERM)
    for _ in range(600):
        if not is_alive(pid):
            _say(json.dumps({"stopped": True}) if options.json else "stopped")
            return 0
        time.sleep(0.1)
    raise SuiteError(
        f"process {pid} did not stop within a minute; `kill -9 {pid}` ends it, nothing accepted is lost"
    )


def status(home: Home, options: argparse.Namespace) -> int:
    """Says what runs; exit 1 when something does not."""
    import asyncio

    from services.suite.probe import serving

    state = home.state()
    if not state.get("pid") or not is_alive(state["pid"]):
        _say(
            json.dumps({"running": False})
            if options.json
            else f"no suite runs in `{home.path}`; `sluice up` starts it"
        )
        return 1
    answers = asyncio.run(serving(state["ports"]))
    rows = {
        name: {"pid": pid, "alive": is_alive(pid), "serving": answers.get(name)}
        for name, pid in state["processes"].items()
    }
    healthy = all(row["alive"] and row["serving"] is not False for row in rows.values())
    if options.json:
        _say(
            json.dumps(
                {"running": True, "address": state["address"], "http": state["http"], "processes": rows}
            )
        )
    else:
        for name, row in rows.items():
            word = {True: "serving", False: "NOT SERVING", None: "running"}[row["serving"]]  # type: ignore[index]
            _say(f"{name:15} {row['pid']:>8}  {word if row['alive'] else 'DEAD'}")
    return 0 if healthy else 1


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
