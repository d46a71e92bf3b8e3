"""Asks endpoints of the project for a recipe, which has no network, under the trainer's own identity. It reads no grade
and asks none but the endpoints that the spec names.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from kit.rpc.names import id_of, parent_of, project_of
from kit.telemetry import current_traceparent, get_log
from services.trainer.judging import judge_versions, judges_of
from sluice.trainer import v1 as trainer

if TYPE_CHECKING:
    import httpx

log = get_log(__name__)
#: The gateway, its route table or the engine is not there or busy: it may be in a moment.
PASSING = frozenset({408, 429, 500, 502, 503, 504})
NOT_FOUND = 404
ATTEMPTS = 6
PATH = "/v1/chat/completions"
TIMEOUT_S = 120.0
AT_ONCE = 8
#: A grade and a few words.
MAX_TOKENS = 32
#: The longest line from a recipe: a batch of prompts with their answers.
MAX_LINE_BYTES = 1 << 28


class RefusedError(Exception):
    """What a recipe is told in place of answers; a sentence without a prompt in it."""


class Judges:
    """The HTTP port of the gateway, for the endpoints of one job."""

    def __init__(self, job: trainer.TrainingJob, address: Callable[[], str], token: Callable[[], str]) -> None:
        """``address`` and ``token`` are asked when there is something to ask."""
        self._project, self._versions = project_of(job.name), judge_versions(job.spec)
        self._endpoints = {judge.endpoint for judge in judges_of(job.spec)}
        self._session = id_of(job.name)
        self._address, self._token = address, token
        self._free = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def line(self) -> AsyncIterator[int | None]:
        """The number of a socket for the recipe to inherit, answered until the block ends; None where it asks none."""
        if not self._endpoints:
            yield None
            return
        import httpx

        ours, theirs = socket.socketpair()
        async with httpx.AsyncClient(
            base_url=f"http://{self._address()}",
            timeout=httpx.Timeout(TIMEOUT_S, connect=5.0),
            trust_env=False,  # the environment's proxies are for the world outside
        ) as client:
            answering = asyncio.create_task(self._answer(ours, client))
            try:
                with theirs:
                    yield theirs.fileno()
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, ours: socket.socket, client: httpx.AsyncClient) -> None:
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answers(json.loads(line), client)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError) as error:
            log.warning("judge_line_broke", kind=type(error).__name__)
        finally:
            writer.close()

    async def _answers(self, asked: dict[str, Any], client: httpx.AsyncClient) -> dict[str, Any]:
        if (endpoint := asked.get("endpoint")) not in self._endpoints:
            return {"error": "The recipe asks an endpoint that the spec does not name."}
        asking = (self._one(client, endpoint, each) for each in asked["questions"])
        try:
            return {"answers": await asyncio.gather(*asking)}
        except RefusedError as refused:
            return {"error": f"The endpoint `{endpoint}` does not judge: {refused}"}

    async def _one(self, client: httpx.AsyncClient, endpoint: str, messages: list[dict[str, str]]) -> str:
        import httpx

        grader = _short(self._versions.get(endpoint, ""))
        name = "@".join(filter(None, (f"{self._project}/endpoints/{endpoint}", grader)))
        body = {"model": name, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}
        why = "it cannot be reached; see that the gateway runs"
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(0.5 * 2**attempt if attempt else 0)
            headers = {
                "authorization": f"Bearer {self._token()}",
                "x-sluice-session": self._session,
                "traceparent": current_traceparent(sampled=False),
            }
            try:
                async with self._free:
                    answer = await client.post(PATH, json=body, headers={k: v for k, v in headers.items() if v})
            except httpx.TransportError:
                continue
            if answer.is_success:
                return _text(answer)
            why = f"HTTP {answer.status_code}; see that it serves a model for chat that takes prompts of this length"
            if answer.status_code == NOT_FOUND and grader:
                why = (
                    f"`{grader}`, which grades this job, serves there no more; bring it back (sluice rollouts create "
                    f"{endpoint} {grader}), then retry the job"
                )
            if answer.status_code not in PASSING:
                break
        raise RefusedError(why)


def _text(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, LookupError, TypeError):
        raise RefusedError("what it says is no answer of a chat") from None


def _short(version: str) -> str:
    """`fair@3`; empty for none."""
    return f"{id_of(parent_of(version))}@{id_of(version)}" if version else ""
