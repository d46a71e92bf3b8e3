"""How a process ends: in order when it can, by force when it cannot, and never because somebody watches."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from kit.rpc.client import connect
from kit.rpc.server import serve
from kit.store import Signal, watch
from sluice.dataset import v1 as dataset

ROOT = Path(__file__).resolve().parents[3]
TOLD_WHILE_STARTING = """
import os, signal
from contextlib import asynccontextmanager
from kit.serve import run

@asynccontextmanager
async def application(settings):
    os.kill(os.getpid(), signal.SIGTERM)
    yield
    print("left in order")

run(lambda environ: None, application)
"""
HANGS = """
import asyncio, os, signal, time
from kit.serve import stop_asked

async def main():
    asked = stop_asked(within_s=1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    await asked.wait()
    print("asked", flush=True)
    await asyncio.to_thread(time.sleep, 20)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("script", "status", "said"), [(TOLD_WHILE_STARTING, 0, "left in order\n"), (HANGS, 1, "asked\n")]
)
def test_a_process_that_is_told_to_end_ends(script: str, status: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (status, said), done.stderr


class Watched(dataset.UploadServiceServicer):
    """An upload to which nothing happens."""

    async def WatchUpload(
        self, request: dataset.WatchUploadRequest, context: object
    ) -> AsyncIterator[dataset.WatchUploadResponse]:
        async def read() -> dataset.Upload:
            return dataset.Upload(name=request.name, etag="1")

        async for upload in watch(read, Signal()):
            yield dataset.WatchUploadResponse(upload=upload)


async def test_watchers_keep_no_server_from_stopping_and_may_come_back() -> None:
    server = await serve("127.0.0.1:0", [(dataset.add_UploadServiceServicer_to_server, Watched())], [])
    ends: list[grpc.StatusCode] = []
    async with connect(server.address) as channel:

        async def follow(seen: asyncio.Event) -> None:
            try:
                async for _ in dataset.UploadServiceStub(channel).WatchUpload(dataset.WatchUploadRequest(name="u")):
                    seen.set()
            except grpc.aio.AioRpcError as error:
                ends.append(error.code())

        seen = [asyncio.Event() for _ in range(5)]
        async with asyncio.timeout(10), asyncio.TaskGroup() as watchers:
            for each in seen:
                watchers.create_task(follow(each))
            for each in seen:
                await each.wait()
            await server.stop(grace_s=0.2)
    assert ends == [grpc.StatusCode.UNAVAILABLE] * 5
