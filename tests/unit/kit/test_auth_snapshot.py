"""The table of keys follows a real gRPC stream and outlives it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from kit.auth import AccessSnapshot, Identity, KeyTable, Verifier, digest
from sluice.registry import v1 as registry


class Registry(registry.AccessServiceServicer):
    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self.answers: asyncio.Queue[registry.WatchAccessResponse | None] = asyncio.Queue()

    async def WatchAccess(
        self, request: registry.WatchAccessRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[registry.WatchAccessResponse]:
        metadata = dict(context.invocation_metadata() or ())
        self.verifier.verify(str(metadata["authorization"]).removeprefix("Bearer "), "registry")
        while (answer := await self.answers.get()) is not None:
            yield answer
        await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")


def response(revision: int, *secrets: str) -> registry.WatchAccessResponse:
    keys = [registry.KeyRecord(secret_sha256=digest(secret), principal=f"keys/{secret}") for secret in secrets]
    return registry.WatchAccessResponse(revision=revision, keys=keys)


async def until_revision(snapshot: AccessSnapshot, revision: int) -> None:
    while snapshot.table.revision != revision:  # noqa: ASYNC110
        await asyncio.sleep(0)


@pytest.mark.timeout(20)
async def test_follow_swaps_keeps_and_comes_back(tmp_path: Path) -> None:
    identity = Identity.create(tmp_path, "trainer")
    servicer = Registry(Verifier(tmp_path))
    server = grpc.aio.server()
    registry.add_AccessServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    snapshot = AccessSnapshot()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        following = asyncio.create_task(
            snapshot.follow(registry.AccessServiceStub(channel), identity, pause=lambda _: 0.0)
        )
        assert not snapshot.ready
        servicer.answers.put_nowait(response(1, "a"))
        await snapshot.wait_until_ready()
        assert snapshot.table.keys.keys() == {digest("a")}
        servicer.answers.put_nowait(None)
        servicer.answers.put_nowait(response(2, "a", "b"))
        await asyncio.wait_for(until_revision(snapshot, 2), 10)
        assert snapshot.ready and digest("b") in snapshot.table.keys
        servicer.answers.put_nowait(response(3))
        await asyncio.wait_for(until_revision(snapshot, 3), 10)
        assert not snapshot.table.keys
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
    await server.stop(None)


async def test_a_project_that_was_just_made_is_waited_for_and_a_mistyped_one_is_not_there():
    access = AccessSnapshot()
    access.swap(KeyTable(1, {}, frozenset({"projects/old"})))
    assert await access.has_project("projects/old")
    asked = asyncio.create_task(access.has_project("projects/new"))
    await asyncio.sleep(0)
    access.swap(KeyTable(2, {}, frozenset({"projects/old", "projects/other"})))
    await asyncio.sleep(0)
    access.swap(KeyTable(3, {}, frozenset({"projects/old", "projects/new"})))
    assert await asked
    assert not await access.has_project("projects/mistyped")
