"""The engines of one host, by digest, brought to the wanted state; knows no RPC, download or traffic."""

import asyncio
import contextlib
import json
import logging
import secrets
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

from kit.rpc.ports import free_port
from kit.telemetry import span
from services.gateway.engines.adapter_files import check_adapter, check_base, rank_of
from services.gateway.engines.errors import AdapterRejected, EngineError, EngineLost, NotReady, Occupied, WrongKind
from services.gateway.engines.process import EngineProcess, Progress, write_private
from services.gateway.engines.protocol import DEFAULT_SIZING, Engine, Launch, Sizing, Task
from services.gateway.engines.served import Running, Wanted, plain_digest, served_name

_log = logging.getLogger(__name__)


class EngineHost:
    """Level-triggered: every verb states a wish, is idempotent, and mends what has died meanwhile.

    One lock per base makes concurrent calls for a digest start one engine; LoRA versions of a base share it.
    Folders passed in must stay as they are while they are served: evicted adapters are read again from there.
    """

    def __init__(
        self,
        root: Path,
        engine: Engine,
        *,
        sizing: Sizing = DEFAULT_SIZING,
        start_timeout_s: float = 300.0,
        probe_timeout_s: float = 30.0,
        scratch_proof: bool = True,
        progress: Progress | None = None,
    ) -> None:
        self._root, self._engine, self._sizing = root, engine, sizing
        self._start_timeout_s, self._probe_timeout_s = start_timeout_s, probe_timeout_s
        self._scratch_proof, self._progress = scratch_proof, progress
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._scratch = asyncio.Lock()
        self._wanted: dict[str, Wanted] = {}
        self._processes: dict[str, EngineProcess] = {}
        for path in sorted(root.glob("*/wanted.json")):
            wanted = Wanted(**json.loads(path.read_text(encoding="utf-8")))
            self._wanted[wanted.digest] = wanted
            if process := EngineProcess.adopt(path.parent, engine):
                self._processes[wanted.digest] = process
        if leftover := EngineProcess.adopt(root / "scratch", engine):  # its agent died while proving an adapter
            leftover.kill()

    async def ensure(
        self,
        model_dir: Path,
        digest: str,
        *,
        lora: bool = False,
        task: Task = "generate",
        direct: bool = False,
        rank: int = 0,
    ) -> Running:
        """Serve the base in `model_dir`; a dead or unsound engine is replaced and its adapters reloaded.

        Asking for `lora` of an engine that runs without restarts it; `rank`, of an adapter that comes next, spares one
        that does not run yet the restart which `load` would need. `direct`: the base is wanted by itself, see
        `release`. Raises Occupied while the same model is wanted for another task, WrongKind, NotReady, EngineError.
        """
        digest = plain_digest(digest)
        async with self._locks[digest]:
            known = await self._known_for(digest, task)
            wanted = (
                replace(known, model_dir=str(model_dir), lora=known.lora or lora, direct=known.direct or direct)
                if known
                else Wanted(digest, str(model_dir), lora, task, {}, [], direct, self._above(rank))
            )
            try:
                process = await self._bring_up(wanted)
            except EngineError as failure:
                if known is None or isinstance(failure, WrongKind):  # it never served, or no engine ever will serve it
                    self._forget(digest)
                else:
                    self._save(known)
                raise
            return _running(process, digest, digest)

    async def _known_for(self, digest: str, task: Task) -> Wanted | None:
        """What is wanted of the base; None too where it was wanted for another task and for nobody any more."""
        known = self._wanted.get(digest)
        if known is None or known.task == task:
            return known
        if known.direct or known.adapters:  # their engine may be dead just now; they come back all the same
            raise Occupied(
                f"The same weights are served for `{known.task}` on this host, so they cannot be for `{task}`.",
                "Withdraw the other version first, or serve this one on another host.",
            )
        await self._end(digest)
        return None

    async def load(self, adapter_dir: Path, digest: str, *, base_digest: str) -> Running:
        """Serve a LoRA adapter on its base's engine, once its files and a real answer have shown it sound.

        Its first load on a base is proven on a scratch engine; a rank above those that the base's engine takes restarts
        that one. Raises AdapterRejected (final), EngineLost and NotReady (call again), EngineError.
        """
        digest, base_digest = plain_digest(digest), plain_digest(base_digest)
        wanted = self._base(base_digest)
        if not wanted.lora:
            raise EngineError("The base runs without LoRA.", "Call ensure with lora=True first.")
        if "lora" not in self._engine.capabilities:
            raise EngineError(f"Engine {self._engine.name} serves no LoRA adapters.", "Serve merged weights.")
        rank = self._above(await self._check(adapter_dir, wanted))
        if self._scratch_proof:
            await self._prove_on_scratch(adapter_dir, digest, _for_rank(wanted, rank))
        async with self._locks[base_digest]:
            before = self._base(base_digest)  # a stop may have come first
            wanted = _for_rank(before, rank)
            try:
                process = await self._bring_up(wanted)
            except EngineError:
                self._save(before)  # it may be the rank that is too much: whatever else is served comes back without
                raise
            try:
                await self._load_and_ask(process, adapter_dir, digest)
            except AdapterRejected:
                with contextlib.suppress(EngineError):
                    await process.engine.unload_adapter(process.client, served_name(digest))
                await self._bring_up(before)  # a tainted engine is replaced here, by one that takes no higher rank
                raise
            wanted.adapters[digest] = str(adapter_dir)
            self._save(wanted)
            return _running(process, digest, base_digest)

    async def unload(self, digest: str, *, base_digest: str) -> None:
        """Stop serving an adapter and forget it; not loaded is success. Raises EngineLost."""
        digest, base_digest = plain_digest(digest), plain_digest(base_digest)
        async with self._locks[base_digest]:
            wanted = self._wanted.get(base_digest)
            if wanted is None or wanted.adapters.pop(digest, None) is None:
                return
            if not wanted.adapters:
                wanted.lora_rank = 0
            self._save(wanted)
            process = self._processes.get(base_digest)
            if process is not None and process.alive():
                await process.engine.unload_adapter(process.client, served_name(digest))

    async def release(self, digest: str) -> None:
        """The base is no longer wanted by itself: its engine stops unless adapters need it."""
        digest = plain_digest(digest)
        async with self._locks[digest]:
            wanted = self._wanted.get(digest)
            if wanted is not None and wanted.adapters:
                wanted.direct = False
                return self._save(wanted)
        await self.stop(digest)

    async def probe(self, digest: str) -> None:
        """Ask the engine of this base one real question. Raises EngineLost when it is dead, silent or unsound."""
        process = self._processes.get(plain_digest(digest))
        if process is None or process.tainted:
            raise EngineLost("The engine has gone or is unsound.", "Call ensure to start it again.")
        try:
            await process.probe(timeout_s=self._probe_timeout_s)
        except RuntimeError as closed:  # stopped meanwhile, its client with it
            raise EngineLost("The engine was stopped.", "Call ensure to start it again.") from closed

    def wanted(self) -> tuple[Wanted, ...]:
        """What should be served, running or not."""
        return tuple(self._wanted.values())

    async def stop(self, digest: str) -> None:
        """Stop the engine of this base and forget it with its adapters; not running is success."""
        digest = plain_digest(digest)
        async with self._locks[digest]:
            await self._end(digest)

    async def _end(self, digest: str) -> None:
        process = self._processes.get(digest) or EngineProcess.adopt(self._folder(digest), self._engine)
        self._forget(digest)
        if process is not None:
            await process.stop()

    def _forget(self, digest: str) -> None:
        self._wanted.pop(digest, None)
        self._processes.pop(digest, None)
        (self._folder(digest) / "wanted.json").unlink(missing_ok=True)

    def list(self) -> tuple[Running, ...]:
        """What living engines serve now: each base, then its adapters. Asks no engine; `ensure` does."""
        rows = []
        for base_digest, process in self._processes.items():
            if process.ready and process.alive():
                digests = (base_digest, *self._wanted[base_digest].adapters)
                rows += [_running(process, digest, base_digest) for digest in digests]
        return tuple(rows)

    async def aclose(self) -> None:
        """Let go of the engines; they run on, and the next host on this root adopts them."""
        for process in self._processes.values():
            await process.aclose()
        self._processes.clear()

    async def _bring_up(self, wanted: Wanted) -> EngineProcess:
        """A sound engine for `wanted`, kept or started; holds the base's lock."""
        self._save(wanted)
        process = self._processes.get(wanted.digest)
        if process is not None and await self._sound(process, wanted):
            return process
        if process is not None:
            await process.stop()
        process = EngineProcess.spawn(self._folder(wanted.digest), self._engine, self._launch(wanted))
        self._processes[wanted.digest] = process
        await process.wait_ready(timeout_s=self._start_timeout_s, progress=self._progress)
        await self._restore(process, wanted)
        return await self._bring_up(wanted) if process.tainted else process  # without the one that tainted it

    async def _sound(self, process: EngineProcess, wanted: Wanted) -> bool:
        if process.tainted or process.stopped or (wanted.lora and not process.launch.lora):
            return False
        if wanted.lora_rank > process.launch.lora_rank:
            _log.warning("engine of %s starts anew for adapters of rank %d", process.launch.model, wanted.lora_rank)
            return False
        try:
            if process.ready:
                await process.probe(timeout_s=self._probe_timeout_s)
            else:  # adopted, or our caller was cancelled, while it was starting
                await process.wait_ready(timeout_s=self._start_timeout_s, progress=self._progress)
                await self._restore(process, wanted)
        except EngineError as failure:
            _log.warning("engine of %s is replaced: %s", served_name(wanted.digest), failure.reason)
            return False
        return not process.tainted

    async def _restore(self, process: EngineProcess, wanted: Wanted) -> None:
        """Load the adapters a fresh engine should have; one that has gone bad is forgotten."""
        for digest, folder in tuple(wanted.adapters.items()):
            try:
                await self._check(Path(folder), wanted)
                await self._load_and_ask(process, Path(folder), digest)
            except AdapterRejected as rejection:
                _log.warning("adapter %s is no longer served: %s", served_name(digest), rejection.reason)
                del wanted.adapters[digest]
                self._save(wanted)

    async def _load_and_ask(self, process: EngineProcess, adapter_dir: Path, digest: str) -> None:
        name = served_name(digest)
        with span("engine.load", adapter=name, model=process.launch.model):
            await process.engine.load_adapter(process.client, name, adapter_dir.resolve())
            try:
                await process.engine.ready(process.client, process.launch.task, name)
            except NotReady as silence:  # it was ready a moment ago
                raise EngineLost("The engine stopped answering.", "Call ensure to start it again.") from silence
            except EngineError as failure:
                fix = "Look for overflow in its weights, and train it again for this base."
                process.tainted = True
                raise AdapterRejected(f"Adapter {name} gave no sound answer.", fix) from failure

    async def _prove_on_scratch(self, adapter_dir: Path, digest: str, wanted: Wanted) -> None:
        async with self._scratch:
            if digest in wanted.proven:
                return
            folder = self._root / "scratch"
            process = EngineProcess.spawn(folder, self._engine, self._launch(wanted))
            try:
                with span("engine.prove", adapter=served_name(digest)):
                    await process.wait_ready(timeout_s=self._start_timeout_s, progress=self._progress)
                    await self._load_and_ask(process, adapter_dir, digest)
            except EngineLost as loss:
                fix = "Read scratch/engine.log, and train it again for this base."
                raise AdapterRejected(f"Adapter {served_name(digest)} took its scratch engine down.", fix) from loss
            finally:
                await process.stop()
            wanted.proven.append(digest)

    async def _check(self, adapter_dir: Path, wanted: Wanted) -> int:
        rank = self._sizing.max_lora_rank
        return await asyncio.to_thread(check_adapter, adapter_dir, Path(wanted.model_dir), max_rank=rank)

    def rank_of(self, adapter_dir: Path, model_dir: Path) -> int:
        """The rank that the adapter says. Raises AdapterRejected for one that no engine here takes on this base."""
        check_base(model_dir)
        return rank_of(adapter_dir / "adapter_config.json", self._sizing.max_lora_rank)

    def _above(self, rank: int) -> int:
        """A rank that engines do not start with; 0 for any other."""
        return rank if rank > self._start_rank else 0

    @property
    def _start_rank(self) -> int:
        return min(self._sizing.lora_rank, self._sizing.max_lora_rank)

    def _base(self, digest: str) -> Wanted:
        if digest not in self._wanted:
            raise EngineError(f"Base {served_name(digest)} is not wanted on this host.", "Call ensure for it first.")
        return self._wanted[digest]

    def _launch(self, wanted: Wanted) -> Launch:
        return Launch(
            model_dir=Path(wanted.model_dir).resolve(),
            model=served_name(wanted.digest),
            port=free_port(),
            key=secrets.token_urlsafe(32),
            cache_dir=(self._root / "cache").resolve(),
            task=wanted.task,
            lora=wanted.lora,
            lora_rank=max(self._start_rank, wanted.lora_rank),
            sizing=self._sizing,
        )

    def _folder(self, digest: str) -> Path:
        return self._root / served_name(digest)

    def _save(self, wanted: Wanted) -> None:
        self._wanted[wanted.digest] = wanted
        folder = self._folder(wanted.digest)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(folder / "wanted.json", json.dumps(asdict(wanted)))


def _for_rank(wanted: Wanted, rank: int) -> Wanted:
    return replace(wanted, lora_rank=max(wanted.lora_rank, rank))


def _running(process: EngineProcess, digest: str, base_digest: str) -> Running:
    return Running(process.launch.url, process.launch.key, served_name(digest), digest, base_digest)
