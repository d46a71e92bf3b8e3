"""The one gate before every rpc about a dataset: may this caller, and who read; what the rpc does is not known here.

Roles are judged before it (kit.auth). A grant never lets anybody do what no role of theirs allows.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from kit.auth import ALL_PROJECTS, AccessSnapshot, Principal
from kit.rpc.call import Call, current_call
from kit.rpc.errors import Denied, NotFound
from kit.rpc.fields import texts_and_messages
from kit.store import Database
from services.dataset import domain, store
from services.dataset.governance import grants
from services.dataset.governance.audit import READS, Audit, Reading
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.types import v1 as types

#: Rpcs that stream what rows hold leave an entry in the audit record.
AUDITED = "Read"
#: Rpcs that need no right on the dataset: what they tell, they tell to auditors.
UNGUARDED = frozenset({"CreateDataset", "ListAuditEntries"})
#: Rpcs that need to read only, whatever their name says: what they make changes no row and no right.
ONLY_READ = frozenset({"CreateErasure", "CreateGrant", "DeleteGrant", "DeleteDataset"})
#: Whoever loses a right loses a stream that runs so soon.
AGAIN_S = 1.0
_LATEST = "/versions/latest"
_DATASET = re.compile(r"(projects/[a-z0-9-]+)/datasets/([a-z0-9-]+)(/.*)?")


class HiddenError(NotFound):
    """There is such a dataset, and this caller may not know: they are told the same as where there is none."""


@dataclass(frozen=True)
class Guard:
    """Judges by datasets, their owners and grants. ``find`` gives the principal of a name while its key works."""

    database: Database
    audit: Audit
    find: Callable[[str], Principal | None] = lambda name: None
    again_s: float = AGAIN_S

    async def check(self, method: str, message: Any, known: set[str]) -> None:
        """Raises NotFound when a dataset named in the message is not for this caller to know, Denied when not to
        change.

        ``known`` are the datasets that were judged before in the same call.
        """
        if method in UNGUARDED:
            return
        principal = self._behind(message)
        wanted = dataset.RIGHT_READ if method.startswith(READS) or method in ONLY_READ else dataset.RIGHT_WRITE
        for project, name in set(_datasets(message)):
            if name not in known and not principal.service:
                await self._judge(principal, project, name, wanted)
                known.add(name)

    def _behind(self, message: Any) -> Principal:
        """The caller; where a service asks on somebody's behalf, that one."""
        principal = current_call().principal
        name = getattr(message, "on_behalf_of", "")
        if not principal.service or not name or name.startswith("services/"):
            return principal
        return self.find(name) or Principal(name, frozenset())

    async def _judge(self, principal: Principal, project: str, name: str, wanted: dataset.Right) -> None:
        async with self.database.read() as session:
            if name.endswith("/-") or project == "projects/-":
                found = list(await grants.restricted(session, project))
            else:
                found = await store.DATASETS.find(session, name=name)
                if not found:
                    raise _missing(name)
            for each in found:
                closed = each.access == dataset.DATASET_ACCESS_GRANTED
                rights = await grants.rights_on(session, each.name) if closed else {}
                if not grants.may(principal, each, rights, dataset.RIGHT_READ):
                    raise _missing(name, HiddenError)
                if not grants.may(principal, each, rights, wanted):
                    raise Denied(
                        f"`{principal.name}` may read `{each.name}` and not change it; its owner or an administrator "
                        "can grant it write",
                        reason=errors.ERROR_REASON_ROLE_REQUIRED,
                    )
                if wanted == dataset.RIGHT_WRITE:
                    domain.check_there(each)

    @asynccontextmanager
    async def recording(self, message: Message) -> AsyncIterator[None]:
        """Puts down when what the block does with a message is refused."""
        try:
            yield
        except (Denied, HiddenError):
            await self.refuse(message)
            raise

    async def refuse(self, message: Message) -> None:
        """Puts down that a caller was refused what a message asks, where that is about a dataset that there is."""
        of, resource = _subject(message)
        async with self.database.read() as session:
            there = bool(of) and bool(await store.DATASETS.find(session, name=of))
        if there:
            await self.audit.refuse(current_call(), of, resource)

    async def exact(self, resource: str) -> str:
        """The version that `latest` is now: the record is read when another is."""
        if resource.endswith(_LATEST):
            with suppress(NotFound):
                async with self.database.read() as session:
                    return (await store.get_version(session, resource)).name
        return resource


class Guarded:
    """A servicer behind the guard: it has the same rpcs, and none of them can be called past it."""

    def __init__(self, servicer: object, service: str, guard: Guard) -> None:
        """``service`` is the full name of the gRPC service."""
        self._servicer = servicer
        self._methods: dict[str, MethodDescriptor] = {
            method.name: method for method in descriptor_pool.Default().FindServiceByName(service).methods
        }
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        method = self._methods.get(name)
        if method is None:
            raise AttributeError(name)
        behavior = getattr(self._servicer, name)
        if method.server_streaming:
            return self._streaming(name, behavior)
        return self._single(name, behavior, method.client_streaming)

    def _single(self, name: str, behavior: Any, client_streaming: bool) -> Any:
        async def respond(request: Any, context: Any) -> Any:
            known: set[str] = set()
            if client_streaming:
                return await behavior(self._each(name, request, known), context)
            async with self._guard.recording(request):
                await self._guard.check(name, request, known)
                return await behavior(request, context)

        return respond

    async def _each(self, name: str, requests: AsyncIterator[Any], known: set[str]) -> AsyncIterator[Any]:
        async for request in requests:
            async with self._guard.recording(request):
                await self._guard.check(name, request, known)
            yield request

    def _streaming(self, name: str, behavior: Any) -> Any:
        async def respond(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._guard.recording(request):
                await self._guard.check(name, request, set())
            of, resource = _subject(request) if name.startswith(AUDITED) else ("", "")
            responses: AsyncGenerator[Any] = behavior(request, context)
            told = self._recorded(current_call(), of, await self._guard.exact(resource), responses) if of else responses
            async with aclosing(told):
                judged = time.monotonic()
                async for response in told:
                    if time.monotonic() - judged >= self._guard.again_s:
                        try:
                            async with self._guard.recording(request):
                                await self._guard.check(name, request, set())
                        except Exception as error:
                            await told.athrow(error)  # so that it is not taken for a reader who went away
                            raise
                        judged = time.monotonic()
                    yield response

        return respond

    async def _recorded(
        self, call: Call, of: str, resource: str, responses: AsyncGenerator[Any]
    ) -> AsyncGenerator[Any]:
        audit = self._guard.audit
        reading = audit.begin(call, of, resource)
        outcome = dataset.AUDIT_OUTCOME_BROKEN
        try:
            async with aclosing(responses):
                async for response in responses:
                    await asyncio.shield(reading.written)
                    yield response
                    _count(reading, response)
            outcome = dataset.AUDIT_OUTCOME_COMPLETE
        except (GeneratorExit, asyncio.CancelledError):
            outcome = dataset.AUDIT_OUTCOME_ENDED_EARLY
            raise
        finally:
            await audit.end(reading, outcome)


def guarded(servicers: list[tuple[Any, Any]], guard: Guard) -> list[tuple[Any, Any]]:
    """Pairs (generated add function, servicer) with each servicer behind the guard."""
    return [(add, Guarded(servicer, _service_of(add), guard)) for add, servicer in servicers]


def principals(access: AccessSnapshot, enabled: bool) -> Callable[[str], Principal | None]:
    """Who has a name, among those whose keys work; where nobody needs a key, everybody is an administrator."""

    def find(name: str) -> Principal | None:
        if not enabled:
            return Principal(name, frozenset({(ALL_PROJECTS, int(types.ROLE_ADMIN))}))
        return next((principal for principal, _ in access.table.keys.values() if principal.name == name), None)

    return find


def _service_of(add: Any) -> str:
    """`sluice.dataset.v1.DatasetService` of `add_DatasetServiceServicer_to_server`."""
    return f"sluice.dataset.v1.{add.__name__.removeprefix('add_').removesuffix('Servicer_to_server')}"


def _count(reading: Reading, response: Message) -> None:
    """What one message has brought; rows are lines, where it holds lines."""
    reading.size_bytes += response.ByteSize()
    lines = getattr(response, "rows", None)
    if isinstance(lines, bytes):
        reading.count(lines.count(b"\n"))


def _subject(message: Message) -> tuple[str, str]:
    """The dataset and the resource that a read is about."""
    for value in _texts(message):
        if found := _DATASET.fullmatch(value):
            return f"{found[1]}/datasets/{found[2]}", value
    return "", ""


def _datasets(message: Message) -> Iterator[tuple[str, str]]:
    for value in _texts(message):
        if found := _DATASET.fullmatch(value):
            yield found[1], f"{found[1]}/datasets/{found[2]}"


def _texts(message: Message) -> Iterator[str]:
    for field, value in texts_and_messages(message):
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        for part in value if field.is_repeated else [value]:
            if isinstance(part, Message):
                yield from _texts(part)
            elif field.type == FieldDescriptor.TYPE_STRING:
                yield part


def _missing(name: str, kind: type[NotFound] = NotFound) -> NotFound:
    """What is not for a caller to know does not exist for them."""
    return kind(f"Dataset `{name}` does not exist", resource=("Dataset", name))
