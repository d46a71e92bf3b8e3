"""The engine agent as a process: real gRPC, real blobs, fake engines; killed, adopted, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from kit.auth import Identity
from kit.blobs import BlobStore, FileKek, open_store, store_artifact
from kit.rpc import errors
from kit.rpc.client import connect
from kit.settings import Settings
from sluice.errors import v1 as reasons
from sluice.gateway import v1 as gateway
from sluice.types import v1 as types
from tests.fakes.engine import write_adapter, write_model
from tests.gateway_parts import prepared, process

PROJECT = "projects/default"
HOST = "tests.fakes.host_main"


@dataclass
class Suite:
    """A prepared home, its stored weights, and a stub of the agent."""

    folder: Path
    settings: Settings
    environ: dict[str, str]
    blobs: BlobStore
    stub: gateway.EngineHostServiceAsyncStub

    async def stored(self, name: str, **config: object) -> types.Artifact:
        folder = write_adapter(self.folder / name, **config)  # type: ignore[arg-type]
        return await store_artifact(self.blobs, PROJECT, folder, types.ARTIFACT_KIND_ADAPTER)

    async def load(
        self, artifact: types.Artifact, base: types.Artifact | None = None, timeout: float = 60
    ) -> gateway.LoadedModel:
        request = gateway.LoadModelRequest(project=PROJECT, artifact=artifact, base=base)
        return (await self.stub.LoadModel(request, timeout=timeout, wait_for_ready=True)).loaded_model

    async def loaded(self) -> set[str]:
        request = gateway.ListLoadedModelsRequest()
        models = (await self.stub.ListLoadedModels(request, timeout=60, wait_for_ready=True)).loaded_models
        return {model.digest for model in models}

    def pids(self) -> list[int]:
        paths = (self.settings.home / "run" / "engines").glob("*/engine.json")
        return [json.loads(path.read_text())["pid"] for path in paths]


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[Suite]:
    settings, environ = prepared(tmp_path)
    environ |= {"SLUICE_ENGINE": "fake"}
    identity = Identity.load(settings.identity_folder / "gateway.key")
    channel = connect(settings.address("engine-host"), token=lambda: identity.token("gateway"))
    blobs = open_store(settings.blobs_url, FileKek.load(settings.kek_path, home=settings.home))
    made = Suite(tmp_path, settings, environ, blobs, gateway.EngineHostServiceStub(channel))  # type: ignore[arg-type]
    yield made
    for pid in made.pids():  # a test that failed half way
        os.killpg(pid, signal.SIGKILL)
    await channel.close()


async def ask(model: gateway.LoadedModel) -> str:
    async with httpx.AsyncClient(base_url=model.upstream.url, trust_env=False) as client:
        client.headers["authorization"] = f"Bearer {model.upstream.key}"
        body = {"model": model.upstream.model, "messages": [{"role": "user", "content": "hello"}]}
        answer = await client.post("/v1/chat/completions", json=body)
        return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])


async def test_engines_outlive_a_killed_agent_and_end_with_a_stopped_one(suite: Suite) -> None:
    base = await store_artifact(suite.blobs, PROJECT, write_model(suite.folder / "model"), types.ARTIFACT_KIND_FULL)
    one = await suite.stored("one")
    log = suite.folder / "host.log"
    with process(HOST, suite.environ, log) as agent:
        loaded = await suite.load(base)
        assert "heard hello" in await ask(loaded)
        adapter = await suite.load(one, base)
        assert (adapter.base_digest, adapter.upstream.url) == (base.digest, loaded.upstream.url)
        assert (await ask(adapter)).startswith(adapter.upstream.model)
        before = suite.pids()
        os.kill(agent.pid, signal.SIGKILL)
        agent.wait()
    with process(HOST, suite.environ, log):
        assert await suite.loaded() == {base.digest, one.digest}
        assert await suite.load(one, base) == adapter
        assert suite.pids() == before
        await suite.stub.UnloadModel(gateway.UnloadModelRequest(digest=one.digest))
        assert await suite.loaded() == {base.digest}
    assert suite.pids() == []
    assert adapter.upstream.key not in log.read_text()
    with pytest.raises(httpx.TransportError):
        await ask(loaded)


async def test_refusals_reach_the_caller_and_a_deadline_stops_no_load(suite: Suite) -> None:
    base = await store_artifact(suite.blobs, PROJECT, write_model(suite.folder / "model"), types.ARTIFACT_KIND_FULL)
    bad = await suite.stored("bad", fake_poison=True)
    with process(HOST, suite.environ, suite.folder / "host.log"):
        assert await suite.loaded() == set()
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await suite.load(base, timeout=0.05)
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(20):
            while await suite.loaded() != {base.digest}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await suite.load(bad, base)
        fault = errors.from_rpc_error(refused.value)
        assert (type(fault), fault.reason) == (errors.StateConflict, reasons.ERROR_REASON_MODEL_REJECTED)
        assert "no sound answer" in fault.message
        assert await suite.loaded() == {base.digest}
        evaluator = Identity.load(suite.settings.identity_folder / "evaluator.key")
        async with connect(suite.settings.address("engine-host"), token=lambda: evaluator.token("gateway")) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as denied:
                await gateway.EngineHostServiceStub(channel).ListLoadedModels(gateway.ListLoadedModelsRequest())  # type: ignore[misc]
        assert denied.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_second_agent_on_the_same_folder_is_refused(suite: Suite) -> None:
    log = suite.folder / "second.log"
    with process(HOST, suite.environ, suite.folder / "host.log"):
        await suite.loaded()
        with process(HOST, suite.environ, log) as second:
            assert second.wait(60) == 1
    assert "another engine agent runs" in log.read_text()
