"""The real vLLM with a model that sees: pictures change its answer, and what is wrong with one is a 400."""

import base64
import hashlib
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.gateway.engines import ENGINES
from services.gateway.engines.host import EngineHost
from services.gateway.engines.protocol import Sizing
from tests.seeing import write_qwen2_vl

pytestmark = [pytest.mark.vllm, pytest.mark.prove, pytest.mark.timeout(400)]

BASE = hashlib.sha256(b"sees").hexdigest()


def png(width: int, height: int, shade: int = 0, rows: int | None = None) -> str:
    """A data URL; with fewer `rows` than its `height` says it is cut off."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    line = b"\0" + bytes((x * shade) % 255 for x in range(3 * width))
    pixels = zlib.compress(line * (height if rows is None else rows))
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(whole).decode()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    host = EngineHost(tmp_path / "engines", ENGINES["vllm"], sizing=Sizing(max_model_len=512))
    try:
        running = await host.ensure(write_qwen2_vl(tmp_path / "base", spread=0.3), BASE, lora=True)
        headers = {"authorization": f"Bearer {running.key}", "x-model": running.model}
        async with httpx.AsyncClient(base_url=running.url, headers=headers, trust_env=False, timeout=60) as made:
            yield made
    finally:
        await host.stop(BASE)


async def see(client: httpx.AsyncClient, *urls: str) -> httpx.Response:
    parts = [{"type": "text", "text": "what?"}, *({"type": "image_url", "image_url": {"url": url}} for url in urls)]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 2, "temperature": 0, "logprobs": True}
    return await client.post("/v1/chat/completions", json={"model": client.headers["x-model"], **body})


async def test_vllm_sees_and_refuses_what_is_no_picture(client: httpx.AsyncClient) -> None:
    def likely(answer: httpx.Response) -> list[float]:
        assert answer.status_code == 200, answer.text[:300]
        return [token["logprob"] for token in answer.json()["choices"][0]["logprobs"]["content"]]

    one, other = likely(await see(client, png(56, 56, shade=7))), likely(await see(client, png(56, 56, shade=90)))
    assert one == pytest.approx(likely(await see(client, png(56, 56, shade=7))), abs=1e-5)
    assert one != pytest.approx(other, abs=1e-5)
    likely(await see(client, *[png(28, 28)] * 16))
    wrong = {
        "too many": [png(28, 28)] * 17,
        "fetched": ["http://127.0.0.1:1/x.png"],
        "no picture": ["data:image/png;base64,aGVsbG8="],
        "no base64": ["data:image/png;base64,!!"],
        "cut off": [png(100, 100)[:122]],
        "a bomb": [png(40_000, 40_000, rows=0)],
        "large": [png(7_000, 7_000, rows=0)],
    }
    told = {name: (await see(client, *urls)).status_code for name, urls in wrong.items()}
    assert told == dict.fromkeys(wrong, 400)
