"""The answers of one version, kept in encrypted batches as they come; what they are worth is not known here."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping

from kit.blobs import BlobStore
from kit.rpc.names import id_of, parent_of
from kit.store import Database, Unit, failpoint
from services.evaluator import commands, store
from services.evaluator.store import space_of

BATCH_ROWS = 50
#: An answer waits no longer than this before it is written, so that a crash costs little.
BATCH_S = 2.0


class Answers:
    """Answers by the key of their question. What was written is there after a crash; what was not is asked again."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        evaluation: str,
        version: str,
        *,
        before: int = 0,
        batch_rows: int = BATCH_ROWS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``before`` is how many answers of other versions the progress counts already."""
        self.by_key: dict[int, str] = {}
        #: Why a question got no answer. Not kept: after a restart it is asked again.
        self.failed: dict[int, str] = {}
        self._database = database
        self._blobs = blobs
        self._evaluation = evaluation
        self._version = version
        self._before = before
        self._batch_rows = batch_rows
        self._monotonic = monotonic
        self._unwritten: dict[int, str] = {}
        self._written_at = monotonic()
        self._batches = 0
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Reads what an earlier process wrote. Raises Corrupt."""
        async with self._database.read() as session:
            rows = await store.batches(session, self._evaluation, self._version)
        for batch in rows:
            content = await read_whole(self._blobs, space_of(self._evaluation), batch.digest)
            self.by_key |= {int(key): text for key, text in json.loads(content).items()}
        self._batches = len(rows)

    async def add(self, key: int, answer: str) -> None:
        """Takes an answer; writes it with others of its time."""
        self.by_key[key] = self._unwritten[key] = answer
        late = self._monotonic() - self._written_at > BATCH_S
        if not self._writing.locked() and (late or len(self._unwritten) >= self._batch_rows):
            await self.write()

    async def write(self) -> None:
        """Writes what is not written yet."""
        async with self._writing:
            self._written_at = self._monotonic()
            batch, self._unwritten = self._unwritten, {}
            if batch:
                try:
                    await self._keep(batch)
                except BaseException:
                    self._unwritten = batch | self._unwritten
                    raise

    async def _keep(self, batch: Mapping[int, str]) -> None:
        content = json.dumps(batch, ensure_ascii=False).encode("utf-8", "surrogatepass")
        blob = await self._blobs.put(space_of(self._evaluation), once(content))
        failpoint("evaluator_before_batch")
        number, answers = self._batches + 1, self._before + len(self.by_key) - len(self._unwritten)

        async def work(unit: Unit) -> None:
            row = store.BatchRow(
                evaluation=self._evaluation, model_version=self._version, number=number, digest=blob.digest
            )
            await commands.keep_batch(unit, row, f"asking {_short(self._version)}", answers)

        await self._database.transact(work)
        self._batches = number


async def read_whole(blobs: BlobStore, space: str, digest: str) -> bytes:
    """All bytes of a blob. Raises NotFound, Corrupt."""
    return b"".join([piece async for piece in blobs.open(space, digest)])


async def once(data: bytes) -> AsyncIterator[bytes]:
    """The bytes as a stream of one piece."""
    yield data


def _short(version: str) -> str:
    """`bank-bot@3` of a model version."""
    return f"{id_of(parent_of(version))}@{id_of(version)}"
