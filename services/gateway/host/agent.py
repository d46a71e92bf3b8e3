"""Brings versions into engines and takes them out, whoever asks and however often; it knows no rpc."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path

from kit.blobs import BlobStore
from kit.rpc.errors import Fault, Invalid, StateConflict, Unavailable
from kit.telemetry import get_log
from services.gateway.engines.errors import AdapterRejected, EngineError, EngineLost, Occupied, WrongKind
from services.gateway.engines.host import EngineHost
from services.gateway.engines.protocol import Task
from services.gateway.engines.served import Running, Wanted, plain_digest
from services.gateway.host.fetching import ArtifactCache
from services.gateway.host.pulse import Pulse
from sluice.errors import v1 as errors
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types

log = get_log(__name__)

#: What an engine does with a version, by the interface that its endpoint serves.
TASKS: dict[str, Task] = {
    "chat": "generate",
    "embeddings": "embed",
    "classify": "classify",
    "rerank": "score",
    "entities": "tag",
}


class EngineAgent:
    """The versions of one host. A load goes on when its caller leaves, and a repeat joins it."""

    def __init__(
        self, engines: EngineHost, blobs: BlobStore, cache: Path, *, cache_bytes: int, engine: str, host: str
    ) -> None:
        self._engines, self._engine, self._host = engines, engine, host
        self._cache = ArtifactCache(cache, blobs, limit_bytes=cache_bytes, in_use=self._in_use)
        self._pulse = Pulse(engines.probe)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._loading: dict[tuple[str, str, str], asyncio.Task[gateway.LoadedModel]] = {}

    async def load(
        self, project: str, artifact: types.Artifact, base: types.Artifact | None, interface: str = ""
    ) -> gateway.LoadedModel:
        """Where the version answers, once it has answered a real request of its interface (empty: `chat`).

        Raises StateConflict (MODEL_REJECTED, final), Unavailable (ENGINE_FAILED), Invalid, and what fetching
        raises: Corrupt, NotFound, Exhausted.
        """
        _check(artifact, base)
        task = _task(interface or "chat", base)
        key = (artifact.digest, base.digest if base else "", task)
        if key not in self._loading:
            self._loading[key] = self._begin(key, self._load(project, artifact, base, task))
        return await asyncio.shield(self._loading[key])

    async def unload(self, digest: str) -> None:
        """Takes a version out; an engine stops with the last version that needs it. Not there is success.

        Raises Unavailable (ENGINE_FAILED).
        """
        plain = plain_digest(digest)
        for wanted in self._engines.wanted():
            if plain == wanted.digest or plain in wanted.adapters:
                async with self._locks[wanted.digest]:
                    with engine_faults():
                        await self._take_out(plain, wanted)

    async def loaded(self) -> list[gateway.LoadedModel]:
        """The versions that were asked for and whose engines answer."""
        asked_for = {digest for wanted in self._engines.wanted() for digest in _versions(wanted)}
        running = [each for each in self._engines.list() if each.digest in asked_for]
        return [self._shown(each) for each in await self._pulse.answering(running)]

    async def stop(self) -> None:
        """Stops every engine; nothing is loaded any more."""
        loads = list(self._loading.values())
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        await self._pulse.aclose()
        await asyncio.gather(*(self._engines.stop(wanted.digest) for wanted in self._engines.wanted()))

    def _begin(
        self, key: tuple[str, str, str], load: Coroutine[None, None, gateway.LoadedModel]
    ) -> asyncio.Task[gateway.LoadedModel]:
        def ended(task: asyncio.Task[gateway.LoadedModel]) -> None:
            del self._loading[key]
            if not task.cancelled() and (error := task.exception()) is not None:
                cause = error.message if isinstance(error, Fault) else type(error).__name__
                log.warning("load_failed", digest=key[0], cause=cause)

        task = asyncio.create_task(load)
        task.add_done_callback(ended)
        return task

    async def _load(
        self, project: str, artifact: types.Artifact, base: types.Artifact | None, task: Task
    ) -> gateway.LoadedModel:
        weights = base or artifact
        async with self._locks[plain_digest(weights.digest)]:
            weights_folder = await self._folder(project, weights)
            adapter_folder = await self._folder(project, artifact) if base else None
            with engine_faults():
                lora = task == "generate"  # vLLM refuses to start many a model of another kind with LoRA
                running = await self._engines.ensure(
                    weights_folder,
                    weights.digest,
                    lora=lora,
                    task=task,
                    direct=adapter_folder is None,
                    rank=self._engines.rank_of(adapter_folder, weights_folder) if adapter_folder else 0,
                )
            if adapter_folder is not None:
                with engine_faults():
                    running = await self._engines.load(adapter_folder, artifact.digest, base_digest=weights.digest)
            log.info("version_loaded", digest=artifact.digest, base=base.digest if base else "")
            return self._shown(running)

    async def _folder(self, project: str, artifact: types.Artifact) -> Path:
        """The files of an artifact, checked unless an engine that answers serves them already."""
        plain = plain_digest(artifact.digest)
        for running in self._engines.list():
            if running.digest == plain and await self._answers(running.base_digest):
                return self._cache.folder(artifact.digest)
        for wanted in self._engines.wanted():  # its engine starts anew and loads these again: only intact ones
            if wanted.digest == plain:
                for adapter in wanted.adapters:
                    await self._cache.intact(f"sha256:{adapter}")
        return await self._cache.fetch(project, artifact)

    async def _answers(self, base_digest: str) -> bool:
        try:
            await self._engines.probe(base_digest)
        except EngineError:
            return False
        return True

    async def _take_out(self, plain: str, wanted: Wanted) -> None:
        if plain == wanted.digest:
            await self._engines.release(plain)
            return
        with suppress(EngineLost):  # then it is out, too
            await self._engines.unload(plain, base_digest=wanted.digest)
        if not wanted.adapters and not wanted.direct:
            await self._engines.stop(wanted.digest)

    def _in_use(self) -> Set[str]:
        served = {f"sha256:{digest}" for each in self._engines.wanted() for digest in (each.digest, *each.adapters)}
        return served | {digest for key in self._loading for digest in key[:2]}

    def _shown(self, running: Running) -> gateway.LoadedModel:
        base = "" if running.base_digest == running.digest else f"sha256:{running.base_digest}"
        return gateway.LoadedModel(
            digest=f"sha256:{running.digest}",
            base_digest=base,
            upstream=gateway.Upstream(url=running.url, key=running.key, model=running.model),
            engine=self._engine,
            host=self._host,
        )


@contextmanager
def engine_faults() -> Iterator[None]:
    """Says what an engine says as a Fault."""
    try:
        yield
    except (AdapterRejected, Occupied, WrongKind) as rejection:
        raise StateConflict(str(rejection), reason=errors.ERROR_REASON_MODEL_REJECTED) from rejection
    except EngineError as failure:
        raise Unavailable(str(failure), reason=errors.ERROR_REASON_ENGINE_FAILED) from failure


def _versions(wanted: Wanted) -> tuple[str, ...]:
    return (wanted.digest, *wanted.adapters) if wanted.direct else tuple(wanted.adapters)


def _task(interface: str, base: types.Artifact | None) -> Task:
    """What an engine is asked to do. Raises StateConflict (MODEL_REJECTED) where none can."""
    if interface not in TASKS:
        raise StateConflict(
            f"no engine here serves the interface `{interface}`; there are {', '.join(TASKS)}",
            reason=errors.ERROR_REASON_MODEL_REJECTED,
        )
    if base is not None and interface != "chat":
        raise StateConflict(
            f"an adapter cannot serve `{interface}`; merge it into its base and import the merged weights",
            reason=errors.ERROR_REASON_MODEL_REJECTED,
        )
    return TASKS[interface]


def _check(artifact: types.Artifact, base: types.Artifact | None) -> None:
    if artifact.kind == types.ARTIFACT_KIND_PACKAGE:
        raise Invalid("a package to take away is nothing that an engine serves; name a version's weights")
    if artifact.kind == types.ARTIFACT_KIND_ADAPTER and base is None:
        raise Invalid("an adapter needs its base; name the base's artifact", violations=[("base", "is missing")])
    if artifact.kind == types.ARTIFACT_KIND_FULL and base is not None:
        raise Invalid("complete weights need no base; leave it out", violations=[("base", "must be absent")])
    if base is not None and base.kind != types.ARTIFACT_KIND_FULL:
        raise Invalid("a base must be complete weights", violations=[("base.kind", "must be ARTIFACT_KIND_FULL")])
