"""Sends requests to a gateway's HTTP port, as its users do; what is asked and what is right are not known here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from kit.rpc.errors import Unavailable
from kit.telemetry import current_traceparent

if TYPE_CHECKING:
    import httpx

#: The gateway itself, its route table or its engine is not there yet or busy: the model is not to blame.
NOT_THERE = frozenset({404, 429, 503})
#: The engine failed in this one; it may not in the next.
PASSING = frozenset({408, 500, 502, 504})
ATTEMPTS = 5


class NoAnswer(Exception):
    """The engine did not answer a question; the reason is in words and holds nothing of the question."""


class Engine:
    """A gateway's HTTP port, asked under the evaluator's own identity. ``async with`` closes its connections."""

    def __init__(
        self,
        address: str,
        token: Callable[[], str],
        *,
        timeout_s: float,
        connections: int,
        backoff_s: float = 0.5,
    ) -> None:
        """``token`` is asked before each request; ``backoff_s`` × 1, 2, 4, 8 lies between its repeats."""
        self._address = address
        self._token = token
        self._timeout_s = timeout_s
        self._connections = connections
        self._backoff_s = backoff_s
        self._opened: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opened is not None:
            await self._opened.aclose()

    @property
    def _client(self) -> httpx.AsyncClient:
        """The connections; the HTTP library is loaded here and not before, for a process that has nothing to ask."""
        if self._opened is None:
            import httpx

            self._opened = httpx.AsyncClient(
                base_url=f"http://{self._address}",
                timeout=httpx.Timeout(self._timeout_s, connect=5.0),
                limits=httpx.Limits(max_connections=self._connections),
                trust_env=False,  # the environment's proxies are for the world outside
            )
        return self._opened

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON that a request gives, after up to five tries.

        Raises NoAnswer where the engine fails or refuses it, Unavailable where nobody is there to answer it.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(path, body)
            except _Passing as failure:
                if attempt == ATTEMPTS:
                    raise failure.last from None
                await asyncio.sleep(self._backoff_s * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    async def _once(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        client = self._client
        # Not sampled: one span with the counts tells more than one a row.
        headers = {"authorization": f"Bearer {self._token()}", "traceparent": current_traceparent(sampled=False)}
        try:
            answer = await client.post(path, json=body, headers={k: v for k, v in headers.items() if v})
            if answer.is_success:
                return dict(answer.json())
        except httpx.TimeoutException:
            raise _Passing(NoAnswer("the engine took too long")) from None
        except httpx.ConnectError:
            raise _Passing(_nobody("it cannot be reached")) from None
        except httpx.TransportError:
            raise _Passing(NoAnswer("the connection broke")) from None
        except (ValueError, TypeError):
            raise NoAnswer("the engine's answer is not JSON") from None
        status = answer.status_code
        if status in NOT_THERE:
            raise _Passing(_nobody(f"HTTP {status}"))
        if status in PASSING:
            raise _Passing(NoAnswer(f"the engine failed with HTTP {status}"))
        raise NoAnswer(f"the engine refused the request with HTTP {status}; it may be too long")


class _Passing(Exception):
    """May be different the next time; ``last`` is what to raise when there is no next time."""

    def __init__(self, last: Exception) -> None:
        super().__init__()
        self.last = last


def _nobody(reason: str) -> Unavailable:
    return Unavailable(f"the gateway's HTTP port gave no answer ({reason}); see that it and its engine run")
