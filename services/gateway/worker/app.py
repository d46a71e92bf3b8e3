"""The worker as an ASGI application: paths, keys, bodies and errors of the OpenAI surface; knows no source
of snapshots.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from services.gateway.worker.answers import Headers, Message, Receive, Send, answer, only, refuse
from services.gateway.worker.body import parse_request
from services.gateway.worker.call import Call, Surroundings
from services.gateway.worker.errors import (
    ClientGone,
    Denied,
    GatewayError,
    Internal,
    ModelNotFound,
    NotReady,
    Unauthenticated,
    UnknownPath,
)
from services.gateway.worker.exchange import Exchange, Timeouts
from services.gateway.worker.figures import Figures
from services.gateway.worker.paths import PATHS, Way, require_interface
from services.gateway.worker.patience import Patience
from services.gateway.worker.policy import (
    VerifyToken,
    admit,
    authenticate,
    interface_of,
    may_infer,
    session_key,
    visible,
)
from services.gateway.worker.reading import read_body
from services.gateway.worker.screening import check_inputs, check_prompt
from services.gateway.worker.served import Served, ServedLog, TableSwapped
from services.gateway.worker.snapshot import KeyTable, Principal, RouteTable, Upstream
from services.gateway.worker.trace import Trace, continue_trace, describe, keeping, request_id
from services.gateway.worker.upstream import EnginePool

WITHDRAWN_ENDS_S = 30.0
METRICS_ROLES = frozenset({"admin", "operations", "engineering"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and counts a worker holds at most."""

    request_bytes: int = 32 * 1024 * 1024
    answer_bytes: int = 64 * 1024 * 1024
    connections_per_engine: int = 1024


class Worker:
    """Serves what the last `swap_routes` and `swap_keys` said; both are synchronous and belong to the loop's
    thread.

    `verify_token` turns a service's token into its principal. `anonymous`, where given, is who everybody without
    a valid service token is (ENABLE_AUTH=false). A request whose caller keeps a trace gets a span, and `trace_ratio`
    of the others. A request of a version that a new table no longer names may take `withdrawn_ends_s` to end, then it
    is cut.
    """

    def __init__(
        self,
        served: ServedLog,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        figures: Figures | None = None,
        verify_token: VerifyToken | None = None,
        anonymous: Principal | None = None,
        trace_ratio: float = 0.0,
        clock: Callable[[], float] = time.time,
        withdrawn_ends_s: float = WITHDRAWN_ENDS_S,
    ) -> None:
        self.figures = figures if figures is not None else Figures()
        self.served = served
        self.rejected: Counter[str] = Counter()
        self._timeouts = timeouts or Timeouts()
        self._limits = limits or Limits()
        self._verify_token = verify_token
        self._anonymous = anonymous
        self._trace_ratio = trace_ratio
        self._clock = clock
        self._told: RouteTable | None = None
        #: What the registry took back. It stays so: no version is approved again.
        self._revoked: frozenset[str] = frozenset()
        #: The table in force: what was told, without what was taken back.
        self._table: RouteTable | None = None
        self._table_at = 0
        self._keys: KeyTable | None = None
        self._pools: dict[tuple[str, str], EnginePool] = {}
        self._patience = Patience()
        self._withdrawn_ends_s = withdrawn_ends_s
        self._calls: set[Call] = set()
        self._around: Surroundings | None = None

    @property
    def ready(self) -> bool:
        """Whether requests can be served: there are routes and keys."""
        return self._table is not None and (self._keys is not None or self._anonymous is not None)

    @property
    def revision(self) -> int | None:
        """The revision of the table in force."""
        return self._table.revision if self._table is not None else None

    def swap_routes(self, table: RouteTable) -> None:
        """From its return on, every request is admitted by `table` alone. An older revision is ignored."""
        if self._table is not None and table.revision < self._table.revision:
            return
        before, self._told, self._table = self._table, table, table.without(self._revoked)
        self._table_at = int(self._clock())
        self.served.add(TableSwapped(self._clock(), table.revision))
        named = {(upstream.url, upstream.key) for upstream in table.upstreams()}
        for key in self._pools.keys() - named:
            self._pools.pop(key).retire()
        withdrawn = before.versions() - table.versions() if before is not None else frozenset()
        if withdrawn and self._around is not None:
            self._around.loop.call_later(self._withdrawn_ends_s, self._cut, withdrawn)

    def revoke(self, version: str) -> None:
        """From its return on, no request is admitted to `version` and no byte of it leaves, whatever tables say."""
        self._revoked |= {version}
        if self._told is not None:
            self._table = self._told.without(self._revoked)
        for call in [call for call in self._calls if call.target.version == version]:
            call.withdraw()

    def swap_keys(self, keys: KeyTable) -> None:
        """From its return on, `keys` alone says who may call."""
        self._keys = keys

    def _cut(self, versions: frozenset[str]) -> None:
        named = self._table.versions() if self._table is not None else frozenset()
        for call in [call for call in self._calls if call.target.version in versions - named]:
            call.withdraw()

    async def start(self) -> None:
        """Begin recording. Before the first request."""
        self.served.start()

    async def aclose(self) -> None:
        """Close idle connections and write the last records. After the last request."""
        for pool in self._pools.values():
            pool.retire()
        self._pools.clear()
        await self.served.aclose()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI 3; HTTP only."""
        if scope["type"] != "http":
            raise RuntimeError(f"the worker speaks HTTP only, not {scope['type']}")
        headers = dict(scope["headers"])
        base: Headers = []
        try:
            path, method = scope["path"], scope["method"]
            if (way := PATHS.get(path)) is not None:
                only(method, "POST")
                await self._infer(path, way, headers, base, receive, send)
            else:
                await self._look_up(path, method, headers, base, send)
        except ClientGone:
            return
        except GatewayError as error:
            self.rejected[error.kind] += 1
            await refuse(send, error, base)
        except Exception:
            _log.exception("request %s failed", dict(base).get(b"x-request-id", b"-").decode("latin-1"))
            await refuse(send, Internal("The gateway failed; the request id names the cause in its log."), base)

    async def _infer(
        self, path: str, way: Way, headers: dict[bytes, bytes], base: Headers, receive: Receive, send: Send
    ) -> None:
        trace = continue_trace(headers.get(b"traceparent"), path, self._trace_ratio)
        identity = request_id(headers.get(b"x-request-id"))
        base += [(b"x-request-id", identity), (b"traceresponse", trace.header)]
        with keeping(trace):
            principal = may_infer(self._who(headers))
            body = await read_body(
                receive, headers, self._limits.request_bytes, self._timeouts.request_body_s, self._patience
            )
            request = parse_request(body)
            table = self._table
            if table is None:
                raise NotReady("The gateway has not received its routes yet; try again in a moment.")
            session = session_key(headers.get(b"x-sluice-session"), request.user, principal)
            target = admit(request.model, session, table, principal)
            require_interface(target, way, request.model)
            (check_prompt if way.generates else check_inputs)(request.members)  # decodes: not for those not admitted
            around = self._around or self._settle()
            exchange = Exchange(self._timeouts, around.loop, streaming=request.stream)
            call = Call(around, way, target, request, exchange, trace, identity)
            try:
                await call.run(receive, send)
            except BaseException:
                base[:] = call.headers()  # as late as this: the stable arm may have been asked instead
                raise

    async def _look_up(self, path: str, method: str, headers: dict[bytes, bytes], base: Headers, send: Send) -> None:
        if path == "/healthz":
            only(method, "GET", "HEAD")
            if not self.ready:
                raise NotReady("The gateway has not received its routes and keys yet.")
            await answer(send, 200, b'{"status":"ready"}', base)
        elif path == "/metrics":
            only(method, "GET")
            principal = self._who(headers)
            if not principal.has_role(METRICS_ROLES):
                raise Denied("This key's roles do not allow reading figures; ask an admin for the role `operations`.")
            text = self.figures.prometheus(partial(principal.has_role, METRICS_ROLES)).encode()
            await answer(send, 200, text, base, b"text/plain; version=0.0.4; charset=utf-8")
        elif path == "/v1/models" or path.startswith("/v1/models/"):
            only(method, "GET")
            models = self._models(may_infer(self._who(headers)))
            if path != "/v1/models":
                name = path.removeprefix("/v1/models/")
                if name not in models:
                    raise ModelNotFound(name)
                await answer(send, 200, msgspec.json.encode(models[name]), base)
                return
            await answer(send, 200, msgspec.json.encode({"object": "list", "data": [*models.values()]}), base)
        else:
            raise UnknownPath(f"{method} {path[:200]} is not served here; there are /v1/models, {', '.join(PATHS)}.")

    def _who(self, headers: dict[bytes, bytes]) -> Principal:
        header = headers.get(b"authorization")
        try:
            return authenticate(header, self._keys, self._clock(), self._verify_token)
        except (Unauthenticated, NotReady):
            if self._anonymous is None:
                raise
            return self._anonymous

    def _models(self, principal: Principal) -> dict[str, dict[str, object]]:
        """What may be asked by name, each as OpenAI shows a model, and with the interface that says where to ask."""
        table = self._table
        if table is None:
            raise NotReady("The gateway has not received its routes yet; try again in a moment.")
        shown = {"object": "model", "created": self._table_at, "owned_by": "sluice"}
        names = visible(table, principal)
        return {name: {"id": name, **shown, "interface": interface_of(name, table, principal)} for name in names}

    def _settle(self) -> Surroundings:
        self._around = Surroundings(
            table=lambda: self._table,
            pool=self._pool,
            figures=self.figures,
            record=self._record,
            now=self._clock,
            loop=asyncio.get_running_loop(),
            patience=self._patience,
            max_answer_bytes=self._limits.answer_bytes,
            calls=self._calls,
        )
        return self._around

    def _pool(self, upstream: Upstream) -> EnginePool:
        pool = self._pools.get((upstream.url, upstream.key))
        if pool is None:
            pool = EnginePool(upstream, self._timeouts, max_connections=self._limits.connections_per_engine)
            self._pools[upstream.url, upstream.key] = pool
        return pool

    def _record(self, served: Served, trace: Trace) -> None:
        self.served.add(served)
        if trace.span is not None:
            describe(trace.span, served)
