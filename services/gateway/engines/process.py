"""One engine as a child process that outlives us: spawn, adopt, watch, stop; knows no digest or adapter."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import httpx

from kit.telemetry import span
from services.gateway.engines.engine_log import last_error, last_line, trim
from services.gateway.engines.errors import EngineError, EngineLost, NotReady, WrongKind
from services.gateway.engines.pids import birth_of, group_alive
from services.gateway.engines.protocol import Engine, Launch, Sizing

_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "VIRTUAL_ENV",
    "SLUICE_SUITE",  # by which the end of the suite finds an engine whose host is gone
)
_LOG_LIMIT_BYTES = 8 * 2**20
_POLL_S = 0.2
_REQUEST_TIMEOUT_S = 60.0

Progress = Callable[[float, str], None]
"""Called while an engine starts, with the seconds since then and its latest log line."""


class EngineProcess:
    """A started engine, ours or re-adopted. Its folder holds `engine.json` (0600) and `engine.log`."""

    def __init__(self, folder: Path, engine: Engine, launch: Launch, pid: int, birth: str, ready: bool) -> None:
        self.folder, self.engine, self.launch = folder, engine, launch
        self.pid, self.birth, self.ready = pid, birth, ready
        self.tainted = False  # has computed NaN: others' answers are in doubt, whatever a probe says
        self.client = httpx.AsyncClient(
            base_url=launch.url,
            headers={"Authorization": f"Bearer {launch.key}"},
            timeout=_REQUEST_TIMEOUT_S,
            trust_env=False,  # a proxy of the environment has no business on loopback
        )

    @classmethod
    def spawn(cls, folder: Path, engine: Engine, launch: Launch) -> Self:
        """Start the child in a session of its own and write its state; `wait_ready` comes next.

        Raises EngineError where the engine refuses the launch or the program cannot be run.
        """
        command = engine.command(launch)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        log = os.open(folder / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            pid = os.posix_spawn(
                command.argv[0],
                command.argv,
                {**inherited, "PYTHONUNBUFFERED": "1", **command.env},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
            )
        except OSError as failed:
            raise EngineError(
                f"The program of engine {engine.name} cannot be run.", "Install it on this host."
            ) from failed
        finally:
            os.close(log)
        process = cls(folder, engine, launch, pid, birth_of(pid) or "", ready=False)
        process._save()
        return process

    @classmethod
    def adopt(cls, folder: Path, engine: Engine) -> Self | None:
        """The engine an earlier agent left in `folder`, if that very process still runs; None otherwise."""
        try:
            state: dict[str, Any] = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
            launch = _launch(state["launch"])
            process = cls(folder, engine, launch, int(state["pid"]), str(state["birth"]), bool(state["ready"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return process if process.alive() or process._group_is_ours() else None

    async def wait_ready(self, *, timeout_s: float, progress: Progress | None = None) -> None:
        """Return once a real request was answered soundly; otherwise stop the child and raise.

        Raises NotReady when it ends early or the time is up, WrongKind or EngineError when it answers wrongly.
        """
        try:
            with span("engine.start", engine=self.engine.name, model=self.launch.model):
                await self._first_answer(timeout_s, progress)
        except (NotReady, WrongKind):
            await self.stop()
            raise
        except EngineError as failure:  # only our own question was asked so far, so the log is safe to quote
            await self.stop()
            cause = last_error(self.folder / "engine.log")
            raise EngineError(f"{failure.reason} Its log says: {cause}.", failure.fix) from failure
        self.ready = True
        self._save()

    async def _first_answer(self, timeout_s: float, progress: Progress | None) -> None:
        started = time.monotonic()
        while not await self._answers():
            waited_s = time.monotonic() - started
            if not self.alive():
                reason = last_error(self.folder / "engine.log")
                raise NotReady(
                    f"The engine ended before it was ready: {reason}.",
                    "Correct that and ensure it again.",
                )
            if waited_s > timeout_s:
                raise NotReady(
                    f"The engine was not ready within {timeout_s:g} s.",
                    "Allow more time or a smaller model.",
                )
            if progress is not None:
                progress(waited_s, last_line(self.folder / "engine.log"))
            await asyncio.sleep(_POLL_S)

    async def _answers(self) -> bool:
        try:
            await self.engine.ready(self.client, self.launch.task, self.launch.model)
        except NotReady:
            return False
        return True

    def alive(self) -> bool:
        """Whether the very process we started still runs; reaps it where it was our child and has ended."""
        with contextlib.suppress(ChildProcessError):  # adopted: not ours to reap
            os.waitpid(self.pid, os.WNOHANG)
        return birth_of(self.pid) == self.birth

    async def probe(self, *, timeout_s: float) -> None:
        """Ask the served model one real question. Raises EngineLost when dead, silent or unsound."""
        trim(self.folder / "engine.log", _LOG_LIMIT_BYTES)
        try:
            if self.alive():
                async with asyncio.timeout(timeout_s):
                    return await self.engine.ready(self.client, self.launch.task, self.launch.model)
        except (EngineError, TimeoutError) as failure:
            raise EngineLost(
                "The engine runs but does not answer soundly.", "Call ensure to start it again."
            ) from failure
        raise EngineLost("The engine process has ended.", "Call ensure to start it again.")

    async def stop(self, *, grace_s: float = 5.0) -> None:
        """SIGTERM to the group, SIGKILL after `grace_s`; returns when nothing of it runs. Idempotent."""
        for signum, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
            if not self._group_is_ours():
                break
            self._signal(signum)
            self._signal(signal.SIGCONT)  # a stopped process would sit on its SIGTERM
            deadline = time.monotonic() + patience_s
            while self._group_is_ours() and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # the kernel tells nobody when a group has emptied
        self.ready = False
        (self.folder / "engine.json").unlink(missing_ok=True)
        await self.aclose()

    @property
    def stopped(self) -> bool:
        """Whether we have ended it or let go of it; it can be asked no more."""
        return self.client.is_closed

    def kill(self) -> None:
        """SIGKILL to the group, without waiting."""
        if self._group_is_ours():
            self._signal(signal.SIGKILL)

    def _signal(self, signum: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signum)

    async def aclose(self) -> None:
        """Close our connections; the child runs on."""
        await self.client.aclose()

    def _group_is_ours(self) -> bool:
        """Whether the group has members and its id was not recycled: children outlive a killed leader."""
        self.alive()
        return birth_of(self.pid) in (None, self.birth) and group_alive(self.pid)

    def _save(self) -> None:
        launch = {
            **asdict(self.launch),
            "model_dir": str(self.launch.model_dir),
            "cache_dir": str(self.launch.cache_dir),
        }
        state = {"pid": self.pid, "birth": self.birth, "ready": self.ready, "launch": launch}
        write_private(self.folder / "engine.json", json.dumps(state))


def _launch(state: dict[str, Any]) -> Launch:
    launch = Launch(**{**state, "sizing": Sizing(**state["sizing"])})
    return replace(launch, model_dir=Path(launch.model_dir), cache_dir=Path(launch.cache_dir))


def write_private(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner alone."""
    draft = path.with_name(path.name + ".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
