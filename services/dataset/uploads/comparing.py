"""An upload beside a version that came while it was checked; what they share is told by the process that parses."""

from __future__ import annotations

from kit.rpc.errors import Corrupt, Exhausted, NotFound, StateConflict
from kit.store import Database
from kit.telemetry import get_log
from services.dataset import checks, parts
from services.dataset.analysis import Analyst
from services.dataset.uploads.news import UncomparedError

log = get_log(__name__)
_UNTOLD = (checks.CheckFailed, Corrupt, Exhausted, NotFound, StateConflict)


async def shares_ids(database: Database, analyst: Analyst, between: UncomparedError, upload: str) -> bool:
    """Whether rows of an upload have ids of rows that came since the version they were compared with, for all we know.

    Where that cannot be told they are taken to share some, so that the whole check, which can, is done again.
    """
    async with database.read() as session:
        added = await parts.of(session, upload)
        compared = await parts.of(session, between.compared) if between.compared else []
    try:
        newest = await analyst.rows_of(between.newest)
        return bool(await analyst.count_shared_ids(newest, compared, added))
    except _UNTOLD as error:
        log.warning("ids_not_compared", version=between.newest, upload=upload, reason=type(error).__name__)
        return True


async def count_new(database: Database, analyst: Analyst, version: str, upload: str) -> int | None:
    """How many rows of an upload a version has not; None where that cannot be told any more."""
    async with database.read() as session:
        added = await parts.of(session, upload)
    try:
        before = await analyst.rows_of(version)
        return await analyst.count_new(before, added)
    except _UNTOLD as error:
        log.warning("new_rows_uncounted", version=version, upload=upload, reason=type(error).__name__)
        return None
