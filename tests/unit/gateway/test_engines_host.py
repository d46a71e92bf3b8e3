"""EngineHost brings a host to the wanted state, whatever has died meanwhile."""

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from kit.rpc.ports import free_port
from services.gateway.engines.errors import AdapterRejected, EngineError, EngineLost
from services.gateway.engines.host import EngineHost
from services.gateway.engines.process import EngineProcess
from services.gateway.engines.served import Running, served_name
from tests.fakes.engine import FakeEngine, write_adapter, write_model


def digest_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


BASE, ONE, TWO = digest_of("base"), digest_of("one"), digest_of("two")


async def ask(running: Running, text: str = "hello") -> str:
    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
        client.headers["authorization"] = f"Bearer {running.key}"
        body = {"model": running.model, "messages": [{"role": "user", "content": text}]}
        answer = await client.post("/v1/chat/completions", json=body)
        return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])


def pids(root: Path) -> list[int]:
    return [json.loads(path.read_text())["pid"] for path in root.glob("*/engine.json")]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[EngineHost]:
    host = EngineHost(tmp_path / "engines", FakeEngine())
    write_model(tmp_path / "model")
    write_adapter(tmp_path / "one")
    write_adapter(tmp_path / "two")
    yield host
    last = EngineHost(tmp_path / "engines", FakeEngine())
    await last.stop(BASE)
    await host.aclose()


async def test_concurrent_calls_start_one_engine(host: EngineHost, tmp_path: Path) -> None:
    calls = (host.ensure(tmp_path / "model", f"sha256:{BASE}", lora=True) for _ in range(5))
    answers = await asyncio.gather(*calls)
    assert len(set(answers)) == 1
    assert len(pids(tmp_path / "engines")) == 1
    assert await ask(answers[0]) == f"{served_name(BASE)} heard hello"
    assert answers[0].key not in repr(answers[0])


async def test_adapters_share_the_engine_of_their_base(host: EngineHost, tmp_path: Path) -> None:
    base = await host.ensure(tmp_path / "model", BASE, lora=True)
    one, two = await asyncio.gather(
        host.load(tmp_path / "one", ONE, base_digest=BASE), host.load(tmp_path / "two", TWO, base_digest=BASE)
    )
    assert one.url == two.url == base.url
    assert (await ask(one)).startswith(served_name(ONE))
    assert {running.digest for running in host.list()} == {BASE, ONE, TWO}
    await host.unload(ONE, base_digest=BASE)
    await host.unload(ONE, base_digest=BASE)
    assert {running.digest for running in host.list()} == {BASE, TWO}
    with pytest.raises(httpx.HTTPStatusError):
        await ask(one)


async def test_a_killed_engine_comes_back_with_its_adapters(host: EngineHost, tmp_path: Path) -> None:
    await host.ensure(tmp_path / "model", BASE, lora=True)
    before = await host.load(tmp_path / "one", ONE, base_digest=BASE)
    os.kill(pids(tmp_path / "engines")[0], signal.SIGKILL)
    await host.ensure(tmp_path / "model", BASE, lora=True)
    (one,) = (running for running in host.list() if running.digest == ONE)
    assert one.url != before.url
    assert (await ask(one)).startswith(served_name(ONE))


async def test_a_restarted_agent_adopts_what_runs(host: EngineHost, tmp_path: Path) -> None:
    await host.ensure(tmp_path / "model", BASE, lora=True)
    one = await host.load(tmp_path / "one", ONE, base_digest=BASE)
    await host.aclose()
    again = EngineHost(tmp_path / "engines", FakeEngine())
    assert one in again.list()
    assert await again.load(tmp_path / "one", ONE, base_digest=BASE) == one
    await again.aclose()


async def test_a_hung_engine_is_replaced(tmp_path: Path) -> None:
    host = EngineHost(tmp_path / "engines", FakeEngine(), probe_timeout_s=1.0)
    before = await host.ensure(write_model(tmp_path / "model"), BASE)
    os.kill(pids(tmp_path / "engines")[0], signal.SIGSTOP)
    after = await host.ensure(tmp_path / "model", BASE)
    assert after.url != before.url
    await host.stop(BASE)
    assert host.list() == ()


async def test_an_adapter_that_kills_meets_only_the_scratch_engine(host: EngineHost, tmp_path: Path) -> None:
    base = await host.ensure(tmp_path / "model", BASE, lora=True)
    bad = write_adapter(tmp_path / "bad", fake_crash=True)
    with pytest.raises(AdapterRejected, match="took its scratch engine down"):
        await host.load(bad, digest_of("bad"), base_digest=BASE)
    assert host.list() == (base,)


async def test_an_engine_lost_while_loading_is_not_blamed_on_the_adapter(tmp_path: Path) -> None:
    host = EngineHost(tmp_path / "engines", FakeEngine(), scratch_proof=False)
    await host.ensure(write_model(tmp_path / "model"), BASE, lora=True)
    with pytest.raises(EngineLost):
        await host.load(write_adapter(tmp_path / "bad", fake_crash=True), ONE, base_digest=BASE)
    await host.load(write_adapter(tmp_path / "two"), TWO, base_digest=BASE)
    await host.stop(BASE)


async def test_a_scratch_engine_left_by_a_dead_agent_is_killed(host: EngineHost, tmp_path: Path) -> None:
    await host.ensure(tmp_path / "model", BASE, lora=True)
    launch = host._processes[BASE].launch
    leftover = EngineProcess.spawn(tmp_path / "engines" / "scratch", FakeEngine(), replace(launch, port=free_port()))
    await (again := EngineHost(tmp_path / "engines", FakeEngine())).aclose()
    assert again.list() == ()
    async with asyncio.timeout(20):
        while leftover.alive():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await leftover.aclose()


async def test_a_poisonous_adapter_meets_only_the_scratch_engine(host: EngineHost, tmp_path: Path) -> None:
    base = await host.ensure(tmp_path / "model", BASE, lora=True)
    bad = write_adapter(tmp_path / "bad", fake_poison=True)
    with pytest.raises(AdapterRejected, match="no sound answer"):
        await host.load(bad, digest_of("bad"), base_digest=BASE)
    assert await ask(base) == f"{served_name(BASE)} heard hello"
    assert not (tmp_path / "engines" / "scratch" / "engine.json").exists()


async def test_without_scratch_a_tainted_engine_is_replaced(tmp_path: Path) -> None:
    # The fake's base answers soundly all the while, so that no probe could tell.
    host = EngineHost(tmp_path / "engines", FakeEngine(), scratch_proof=False)
    before = await host.ensure(write_model(tmp_path / "model"), BASE, lora=True)
    await host.load(write_adapter(tmp_path / "one"), ONE, base_digest=BASE)
    with pytest.raises(AdapterRejected):
        await host.load(write_adapter(tmp_path / "bad", fake_poison=True), digest_of("bad"), base_digest=BASE)
    base, one = host.list()
    assert base.url != before.url
    assert (await ask(one)).startswith(served_name(ONE))
    await host.stop(BASE)


async def test_an_adapter_that_rots_is_dropped_and_the_base_lives(host: EngineHost, tmp_path: Path) -> None:
    await host.ensure(tmp_path / "model", BASE, lora=True)
    await host.load(tmp_path / "one", ONE, base_digest=BASE)
    (tmp_path / "one" / "adapter_model.safetensors").write_bytes(b"rot")
    os.kill(pids(tmp_path / "engines")[0], signal.SIGKILL)
    base = await host.ensure(tmp_path / "model", BASE)
    assert host.list() == (base,)


async def test_lora_must_have_been_asked_for(host: EngineHost, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ensure"):
        await host.load(tmp_path / "one", ONE, base_digest=BASE)
    await host.ensure(tmp_path / "model", BASE)
    with pytest.raises(EngineError, match="lora=True"):
        await host.load(tmp_path / "one", ONE, base_digest=BASE)
    await host.ensure(tmp_path / "model", BASE, lora=True)
    await host.load(tmp_path / "one", ONE, base_digest=BASE)


async def test_an_engine_takes_the_rank_of_its_adapters_and_no_more(host: EngineHost, tmp_path: Path) -> None:
    def started_for() -> list[int]:
        states = [json.loads(path.read_text()) for path in (tmp_path / "engines").glob("*/engine.json")]
        return [state["launch"]["lora_rank"] for state in states]

    before = await host.ensure(tmp_path / "model", BASE, lora=True)
    await host.load(tmp_path / "one", ONE, base_digest=BASE)
    assert started_for() == [64]
    with pytest.raises(AdapterRejected):  # it met the scratch engine alone
        await host.load(write_adapter(tmp_path / "bad", rank=256, fake_poison=True), TWO, base_digest=BASE)
    assert started_for() == [64] and (await host.ensure(tmp_path / "model", BASE)).url == before.url
    high = await host.load(write_adapter(tmp_path / "high", rank=128), digest_of("high"), base_digest=BASE)
    assert started_for() == [128] and {each.digest for each in host.list()} == {BASE, ONE, digest_of("high")}
    os.kill(pids(tmp_path / "engines")[0], signal.SIGKILL)
    assert (await host.ensure(tmp_path / "model", BASE)).url != high.url
    assert started_for() == [128] and {each.digest for each in host.list()} == {BASE, ONE, digest_of("high")}
    await host.stop(BASE)
    await host.ensure(tmp_path / "model", BASE, lora=True, rank=100)
    assert started_for() == [100]


async def test_a_rank_goes_with_the_adapters_that_have_it(tmp_path: Path) -> None:
    def started_for() -> int:
        (path,) = (tmp_path / "engines").glob("*/engine.json")
        return int(json.loads(path.read_text())["launch"]["lora_rank"])

    host = EngineHost(tmp_path / "engines", FakeEngine(), scratch_proof=False)
    await host.ensure(write_model(tmp_path / "model"), BASE, lora=True, direct=True)
    with pytest.raises(AdapterRejected):
        await host.load(write_adapter(tmp_path / "bad", rank=256, fake_poison=True), TWO, base_digest=BASE)
    assert started_for() == 64, "the engine that it tainted was replaced by a usual one"
    await host.load(write_adapter(tmp_path / "high", rank=128), ONE, base_digest=BASE)
    assert started_for() == 128
    await host.unload(ONE, base_digest=BASE)
    os.kill(pids(tmp_path / "engines")[0], signal.SIGKILL)
    await host.ensure(tmp_path / "model", BASE)
    assert started_for() == 64
    await host.stop(BASE)
    await host.aclose()


async def test_a_rank_that_no_engine_starts_with_takes_nothing_else_down_for_good(tmp_path: Path) -> None:
    host = EngineHost(tmp_path / "engines", engine := FakeEngine(), scratch_proof=False)
    write_model(tmp_path / "model")
    await host.ensure(tmp_path / "model", BASE, lora=True)
    engine.faults["status"] = 500
    with pytest.raises(EngineError, match="answered 500"):
        await host.load(write_adapter(tmp_path / "high", rank=512), ONE, base_digest=BASE)
    engine.faults.clear()
    await host.ensure(tmp_path / "model", BASE)
    (state,) = [json.loads(path.read_text()) for path in (tmp_path / "engines").glob("*/engine.json")]
    assert state["launch"]["lora_rank"] == 64
    await host.stop(BASE)
    await host.aclose()


async def test_a_digest_is_checked(host: EngineHost, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="64 lower-case hex"):
        await host.ensure(tmp_path / "model", "../etc")


async def test_an_engine_that_failed_its_first_question_is_started_anew_each_time(tmp_path: Path) -> None:
    host = EngineHost(tmp_path / "engines", FakeEngine(status=500))
    write_model(tmp_path / "model")
    for _ in range(2):
        with pytest.raises(EngineError, match="answered 500"):
            await host.ensure(tmp_path / "model", BASE)
    assert not pids(tmp_path / "engines")
    await host.aclose()
