"""The engine agent over fake engines and real blobs: who needs which engine, joins, cancellations and refusals."""

import asyncio
import json
import math
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.blobs import BlobStore, FileKek, open_store, store_artifact
from kit.rpc.errors import Invalid, StateConflict, Unavailable
from services.gateway.engines.errors import EngineLost
from services.gateway.engines.host import EngineHost
from services.gateway.engines.served import Running
from services.gateway.host.agent import EngineAgent
from services.gateway.host.pulse import Pulse
from sluice.errors import v1 as errors
from sluice.types import v1 as types
from tests.fakes.engine import FakeEngine, write_adapter, write_model

PROJECT = "projects/default"


@dataclass
class Parts:
    """An agent on a folder of its own; `base`, `one` and `two` are stored."""

    folder: Path
    blobs: BlobStore
    engine: FakeEngine
    agent: EngineAgent
    base: types.Artifact
    one: types.Artifact
    two: types.Artifact

    def another(self) -> EngineAgent:
        engines = EngineHost(self.folder / "engines", self.engine, scratch_proof=False, start_timeout_s=10)
        return EngineAgent(engines, self.blobs, self.folder / "cache", cache_bytes=2**30, engine="fake", host="here")

    async def adapter(self, name: str, **config: Any) -> types.Artifact:
        folder = write_adapter(self.folder / name, **config)
        return await store_artifact(self.blobs, PROJECT, folder, types.ARTIFACT_KIND_ADAPTER)

    async def model(self, name: str, **config: Any) -> types.Artifact:
        folder = write_model(self.folder / name, **config)
        return await store_artifact(self.blobs, PROJECT, folder, types.ARTIFACT_KIND_FULL)

    async def loaded(self) -> set[str]:
        return {each.digest for each in await self.agent.loaded()}

    def pids(self) -> list[int]:
        return [json.loads(path.read_text())["pid"] for path in (self.folder / "engines").glob("*/engine.json")]


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    (tmp_path / "home").mkdir()
    blobs = open_store(f"file://{tmp_path}/blobs", FileKek.create(tmp_path / "kek", home=tmp_path / "home"))
    base = await store_artifact(blobs, PROJECT, write_model(tmp_path / "model"), types.ARTIFACT_KIND_FULL)
    made = Parts(tmp_path, blobs, FakeEngine(), None, base, base, base)  # type: ignore[arg-type]
    made.one, made.two = await made.adapter("one", value=0.1), await made.adapter("two", value=0.2)
    made.agent = made.another()
    yield made
    await made.agent.stop()
    assert made.pids() == []


async def test_a_base_for_adapters_alone_goes_with_the_last(parts: Parts) -> None:
    agent = parts.agent
    one, two = await asyncio.gather(
        agent.load(PROJECT, parts.one, parts.base), agent.load(PROJECT, parts.two, parts.base)
    )
    assert one.upstream.url == two.upstream.url
    assert (one.base_digest, one.engine, one.host) == (parts.base.digest, "fake", "here")
    assert await parts.loaded() == {parts.one.digest, parts.two.digest}
    await agent.unload(parts.one.digest)
    await agent.unload(parts.one.digest)
    assert await parts.loaded() == {parts.two.digest}
    await agent.unload(parts.two.digest)
    assert (await parts.loaded(), parts.pids()) == (set(), [])


async def test_a_base_that_is_a_version_outlives_its_adapters_and_they_it(parts: Parts) -> None:
    agent = parts.agent
    loaded = await agent.load(PROJECT, parts.base, None)
    assert loaded.base_digest == ""
    await agent.load(PROJECT, parts.one, parts.base)
    await agent.unload(parts.one.digest)
    assert await parts.loaded() == {parts.base.digest}
    await agent.load(PROJECT, parts.one, parts.base)
    await agent.unload(parts.base.digest)
    assert await parts.loaded() == {parts.one.digest}
    await agent.unload(parts.one.digest)
    assert parts.pids() == []


async def test_a_caller_that_leaves_stops_no_load_and_a_repeat_joins_it(parts: Parts) -> None:
    parts.engine.faults["start_delay_s"] = 0.3
    leaving = asyncio.create_task(parts.agent.load(PROJECT, parts.base, None))
    while not parts.pids():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    before = parts.pids()
    again = await parts.agent.load(PROJECT, parts.base, None)
    assert parts.pids() == before
    assert await parts.agent.load(PROJECT, parts.base, None) == again


async def test_a_dead_engine_is_not_listed_and_a_repeat_brings_all_back(parts: Parts) -> None:
    await parts.agent.load(PROJECT, parts.base, None)
    await parts.agent.load(PROJECT, parts.one, parts.base)
    os.kill(parts.pids()[0], signal.SIGKILL)
    while await parts.loaded():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await parts.agent.load(PROJECT, parts.one, parts.base)
    assert await parts.loaded() == {parts.base.digest, parts.one.digest}


async def test_an_adapter_damaged_in_the_cache_is_not_loaded_again(parts: Parts) -> None:
    await parts.agent.load(PROJECT, parts.one, parts.base)
    await parts.agent.load(PROJECT, parts.two, parts.base)
    weights = parts.folder / "cache" / parts.one.digest.removeprefix("sha256:") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\x3f")
    os.kill(parts.pids()[0], signal.SIGKILL)
    await parts.agent.load(PROJECT, parts.two, parts.base)
    assert await parts.loaded() == {parts.two.digest}
    await parts.agent.load(PROJECT, parts.one, parts.base)
    assert await parts.loaded() == {parts.one.digest, parts.two.digest}


async def test_a_successor_adopts_what_runs(parts: Parts) -> None:
    before = await parts.agent.load(PROJECT, parts.one, parts.base)
    parts.agent = parts.another()
    assert [each.upstream for each in await parts.agent.loaded()] == [before.upstream]
    assert await parts.agent.load(PROJECT, parts.one, parts.base) == before


async def test_refusals_are_faults_with_their_sentence(parts: Parts) -> None:
    high = await parts.adapter("high", rank=513)
    with pytest.raises(StateConflict, match=r"rank 513 is not within 1\.\.512") as rejected:
        await parts.agent.load(PROJECT, high, parts.base)
    assert rejected.value.reason == errors.ERROR_REASON_MODEL_REJECTED
    bad = write_adapter(parts.folder / "no-model")
    (bad / "config.json").unlink(missing_ok=True)
    folder = await store_artifact(parts.blobs, PROJECT, bad, types.ARTIFACT_KIND_FULL)
    with pytest.raises(Unavailable, match=r"no config\.json") as failed:
        await parts.agent.load(PROJECT, folder, None)
    assert failed.value.reason == errors.ERROR_REASON_ENGINE_FAILED
    for artifact, base in ((parts.one, None), (parts.base, parts.base), (parts.one, parts.two)):
        with pytest.raises(Invalid):
            await parts.agent.load(PROJECT, artifact, base)


@pytest.mark.parametrize(
    ("interface", "path"), [("embeddings", "/v1/embeddings"), ("classify", "/classify"), ("rerank", "/rerank")]
)
async def test_an_interface_decides_what_the_engine_is_for(parts: Parts, interface: str, path: str) -> None:
    loaded = await parts.agent.load(PROJECT, parts.base, None, interface)
    assert await parts.loaded() == {parts.base.digest}
    body = {"model": loaded.upstream.model, "input": "a", "query": "a", "documents": ["a"]}
    async with httpx.AsyncClient(base_url=loaded.upstream.url, trust_env=False) as client:
        client.headers["authorization"] = f"Bearer {loaded.upstream.key}"
        assert (await client.post(path, json=body)).status_code == 200
        assert (await client.post("/v1/completions", json=body)).status_code == 404
    (wanted,) = (json.loads(path.read_text()) for path in (parts.folder / "engines").glob("*/wanted.json"))
    assert wanted["lora"] is False


async def refused(parts: Parts) -> None:
    with pytest.raises(StateConflict, match="are served for `embed` on this host") as refusal:
        await parts.agent.load(PROJECT, parts.base, None, "chat")
    assert refusal.value.reason == errors.ERROR_REASON_MODEL_REJECTED


async def test_one_digest_under_two_interfaces_is_refused_for_good(parts: Parts) -> None:
    await parts.agent.load(PROJECT, parts.base, None, "embeddings")
    await refused(parts)
    os.kill(parts.pids()[0], signal.SIGKILL)
    while await parts.loaded():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await refused(parts)
    await parts.agent.load(PROJECT, parts.base, None, "embeddings")
    assert await parts.loaded() == {parts.base.digest}
    await parts.agent.unload(parts.base.digest)
    await parts.agent.load(PROJECT, parts.base, None, "chat")


async def test_a_version_that_never_served_keeps_no_other_interface_out(parts: Parts) -> None:
    parts.engine.faults["status"] = 500
    with pytest.raises(Unavailable, match="answered 500"):
        await parts.agent.load(PROJECT, parts.base, None, "embeddings")
    parts.engine.faults.clear()
    with pytest.raises(StateConflict, match="NaN or infinity"):  # its base is up, and for nobody
        await parts.agent.load(PROJECT, await parts.adapter("bad", value=math.nan), parts.base)
    assert parts.pids()
    await parts.agent.load(PROJECT, parts.base, None, "embeddings")
    assert await parts.loaded() == {parts.base.digest}


async def test_what_cannot_serve_an_interface_is_rejected_for_good(parts: Parts) -> None:
    chats = await parts.model("chats", fake_kind="generate")
    for artifact, base, interface, says in (
        (parts.one, parts.base, "embeddings", "merge it into its base"),
        (parts.base, None, "speech", "no engine here serves the interface `speech`"),
        (chats, None, "embeddings", "is no model for embeddings"),
    ):
        with pytest.raises(StateConflict, match=says) as rejected:
            await parts.agent.load(PROJECT, artifact, base, interface)
        assert rejected.value.reason == errors.ERROR_REASON_MODEL_REJECTED
    assert parts.pids() == [] and not list((parts.folder / "engines").glob("*/wanted.json"))
    await parts.agent.load(PROJECT, chats, None)


async def test_a_full_engine_is_listed_until_its_question_is_given_up() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def probe(digest: str) -> None:
        asked.set()
        await gone.wait()
        raise EngineLost("It is silent.", "Start it again.")

    running = [Running("http://127.0.0.1:1", "k", "m", "a" * 64, "a" * 64)]
    pulse = Pulse(probe, patience_s=0.01)
    assert await pulse.answering(running) == running
    await asked.wait()
    gone.set()
    assert await pulse.answering(running) == []
    await pulse.aclose()
