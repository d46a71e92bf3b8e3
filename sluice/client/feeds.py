"""Feeds: rows handed to a dataset a few at a time, acknowledged when they are stored."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from kit.rpc.errors import AlreadyExists, Invalid, NotFound
from kit.rpc.names import slug
from sluice.client import names
from sluice.client.connection import Connection, gather
from sluice.client.demands import message
from sluice.client.uploads import OVER, RowsRefused
from sluice.dataset import v1 as dataset
from sluice.rows.demands import NO_DEMANDS, Demands

#: The feed of a dataset that is meant where none is named; `append` makes it.
DEFAULT = "default"
#: What goes into one batch; the suite takes 2 MiB and 10 000 rows.
BATCH_BYTES, BATCH_ROWS = 1 << 20, 5_000
ROW_BYTES = 2 << 20
#: RFC 9562 name space of the request ids of batches.
BATCHES = uuid.UUID("3f0c5e0e-2a4c-4a36-8d2f-5f9f4f2a9b61")
Row = Mapping[str, Any] | bytes
_LOOK_S = 0.1


class Feeds:
    """``client.feeds``. A feed is `chest-xray/pacs`, or `chest-xray` for the default one of that dataset."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._feeds = dataset.FeedServiceStub(connection.channel)
        self._uploads = dataset.UploadServiceStub(connection.channel)
        self._versions = dataset.DatasetVersionServiceStub(connection.channel)

    async def create(
        self,
        name: str,
        *,
        columns: Mapping[str, str] | None = None,
        fix: bool = False,
        quarantine: bool = True,
        demands: Demands = NO_DEMANDS,
        commit_after_s: float = 0.0,
        commit_rows: int = 0,
        commit_bytes: int = 0,
        paused: bool = False,
    ) -> dataset.Feed:
        """Makes a feed of a dataset that is there.

        ``columns`` says what names in the rows mean, such as {"findings": "prompt"}. Rows become a version when there
        are ``commit_rows`` or ``commit_bytes`` of them, or the first has waited for ``commit_after_s``; 0 means 10 000,
        64 MiB, an hour. Wrong rows are put aside, unless ``quarantine`` is False: then they hold up the others.
        ``demands`` are what is asked of rows beyond their schema, but for a limit of tokens. Raises NotFound,
        AlreadyExists, and Invalid for a bad expression.
        """
        parent, feed = self._parts(name)
        wanted = dataset.Feed(
            display_name=feed,
            columns=columns or {},
            fix=fix,
            on_error=dataset.ON_ERROR_QUARANTINE if quarantine else dataset.ON_ERROR_FAIL,
            demands=message(demands),
            commit_rows=commit_rows,
            commit_bytes=commit_bytes,
            paused=paused,
        )
        if commit_after_s:
            wanted.commit_after.FromTimedelta(timedelta(seconds=commit_after_s))
        request = dataset.CreateFeedRequest(parent=parent, feed=wanted)
        answer: dataset.CreateFeedResponse = await self._connection.call(self._feeds.CreateFeed, request)
        return answer.feed

    async def get(self, name: str) -> dataset.Feed:
        """One feed; raises NotFound."""
        request = dataset.GetFeedRequest(name=self.full(name))
        answer: dataset.GetFeedResponse = await self._connection.call(self._feeds.GetFeed, request)
        return answer.feed

    async def list(self, name: str = "", limit: int = 0) -> builtins.list[dataset.Feed]:
        """The feeds of a dataset, or of all of the project, oldest first."""
        project = self._connection.project
        parent = names.dataset(project, name) if name else f"{project}/datasets/-"
        request = dataset.ListFeedsRequest(parent=parent)
        return await gather(
            self._connection.pages(self._feeds.ListFeeds, request, lambda page: page.feeds, limit=limit)
        )

    async def update(
        self,
        name: str,
        *,
        columns: Mapping[str, str] | None = None,
        fix: bool | None = None,
        quarantine: bool | None = None,
        demands: Demands | None = None,
        commit_after_s: float | None = None,
        commit_rows: int | None = None,
        commit_bytes: int | None = None,
        paused: bool | None = None,
        etag: str = "",
    ) -> dataset.Feed:
        """Changes what is given of a feed and leaves the rest; it holds for the rows that wait, too.

        A paused feed takes rows and makes no version until it goes on or is flushed. Raises NotFound, and Stale when
        ``etag`` is not the present one.
        """
        wanted = dataset.Feed(name=self.full(name), etag=etag, columns=columns or {}, fix=bool(fix))
        request = dataset.UpdateFeedRequest()
        given = {
            "columns": columns,
            "fix": fix,
            "on_error": quarantine,
            "demands": demands,
            "commit_after": commit_after_s,
            "commit_rows": commit_rows,
            "commit_bytes": commit_bytes,
            "paused": paused,
        }
        request.update_mask.paths.extend(field for field, value in given.items() if value is not None)
        wanted.on_error = dataset.ON_ERROR_FAIL if quarantine is False else dataset.ON_ERROR_QUARANTINE
        wanted.commit_rows, wanted.commit_bytes, wanted.paused = commit_rows or 0, commit_bytes or 0, bool(paused)
        wanted.demands.CopyFrom(message(demands or NO_DEMANDS))
        if commit_after_s:
            wanted.commit_after.FromTimedelta(timedelta(seconds=commit_after_s))
        request.feed.CopyFrom(wanted)
        answer: dataset.UpdateFeedResponse = await self._connection.call(self._feeds.UpdateFeed, request)
        return answer.feed

    async def delete(self, name: str, *, force: bool = False, etag: str = "") -> None:
        """Removes a feed; the versions that were made of its rows stay.

        Rows that wait in it are thrown away, which wants ``force``; those being checked still become a version. Raises
        NotFound, StateConflict without ``force`` when it holds rows, and Stale when ``etag`` is not the present one.
        """
        request = dataset.DeleteFeedRequest(name=self.full(name), etag=etag, force=force)
        await self._connection.call(self._feeds.DeleteFeed, request)

    async def append(self, name: str, rows: Iterable[Row], *, request_id: str = "") -> dataset.Feed:
        """Hands rows to a feed, as mappings or as lines of JSON; the default feed is made when it is missing.

        Returns once all are stored, encrypted; from then on nothing loses them, and they will be in one version. Long
        ones go in batches. With a ``request_id`` (a UUID) the same call may be made again within 7 days, after a crash
        say, and no row is taken twice; the feed is returned as it is now. Raises NotFound for a dataset or another feed
        that is not there, Exhausted when too much waits in the feed, and Invalid for what is no row; the batches before
        it are taken.
        """
        feed, base = dataset.Feed(name=self.full(name)), _uuid(request_id)
        for number, batch in enumerate(_batches(rows)):
            batch_id = str(uuid.uuid5(BATCHES, f"{base}\n{feed.name}\n{number}"))
            feed = await self._send(dataset.AppendRowsRequest(name=feed.name, rows=batch, request_id=batch_id))
        return await self.get(feed.name) if request_id else feed  # a repeat is answered with the feed of then

    async def flush(self, name: str) -> dataset.DatasetVersion | None:
        """Has the rows that wait become a version, and waits for it; None when none wait.

        Raises RowsRefused when no version can be made of them: then they wait again.
        """
        request = dataset.FlushFeedRequest(name=self.full(name))
        answer: dataset.FlushFeedResponse = await self._connection.call(self._feeds.FlushFeed, request)
        feed, over = answer.feed, dataset.Upload()
        wanted = feed.next_upload or feed.checked_upload
        if not wanted:
            return None
        async for upload in self._connection.follow(lambda: self._uploads_of(feed.name, wanted), _is_over):
            over = upload
        if over.state != dataset.UPLOAD_STATE_COMMITTED:
            raise RowsRefused(over)
        return await self._version(over)

    def full(self, name: str) -> str:
        """`projects/p/datasets/d/feeds/f` for `d/f`, and for `d` that of its default feed."""
        parent, feed = self._parts(name)
        return f"{parent}/feeds/{slug(feed)}"

    def _parts(self, name: str) -> tuple[str, str]:
        if name.startswith("projects/"):
            parent, _, feed = name.partition("/feeds/")
        else:
            of, _, feed = name.partition("/")
            parent = names.dataset(self._connection.project, of)
        return parent, feed or DEFAULT

    async def _send(self, request: dataset.AppendRowsRequest) -> dataset.Feed:
        try:
            answer: dataset.AppendRowsResponse = await self._connection.call(self._feeds.AppendRows, request)
        except NotFound:
            if not request.name.endswith(f"/{DEFAULT}"):
                raise
            with contextlib.suppress(AlreadyExists):  # another process was quicker
                await self.create(request.name)
            answer = await self._connection.call(self._feeds.AppendRows, request)
        return answer.feed

    async def _version(self, made: dataset.Upload | dataset.Feed) -> dataset.DatasetVersion:
        request = dataset.GetDatasetVersionRequest(name=made.dataset_version)
        answer: dataset.GetDatasetVersionResponse = await self._connection.call(
            self._versions.GetDatasetVersion, request
        )
        return answer.dataset_version

    async def _uploads_of(self, feed: str, wanted: str) -> AsyncIterator[dataset.Upload]:
        """The upload that rows of a feed become; its name is another one when the upload before it failed."""
        present, is_gone = wanted, False
        while True:
            try:
                stream = self._connection.stream(self._uploads.WatchUpload, dataset.WatchUploadRequest(name=present))
                async for answer in stream:
                    yield answer.upload
                return
            except NotFound:
                found = await self.get(feed)
            if present in (found.next_upload, found.checked_upload):  # what came before it is still being checked
                await asyncio.sleep(_LOOK_S)
            elif not is_gone:  # it may have been made, and have ended, since it was asked for
                is_gone = True
            else:
                present = found.next_upload or found.checked_upload or (await self._version(found)).upload
                is_gone = False


def short(name: str) -> str:
    """`chest-xray/pacs` of `projects/p/datasets/chest-xray/feeds/pacs`."""
    parts = name.split("/")
    return f"{parts[3]}/{parts[5]}" if len(parts) == 6 else name


def _uuid(request_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(request_id) if request_id else uuid.uuid4()
    except ValueError:
        raise Invalid("a request id is a UUID; make one with `uuid.uuid4()`") from None


def _line(row: Mapping[str, Any]) -> bytes:
    """One row as JSON. Raises Invalid for what JSON does not have."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise Invalid("a row has half a surrogate pair in a text, which is not Unicode; replace it") from None
    except (TypeError, ValueError, RecursionError) as error:
        kind = f"({error})" if isinstance(error, TypeError) else "(a number that is not finite, or rows within rows)"
        raise Invalid(f"a row is no JSON {kind}; give texts, finite numbers, lists and mappings") from None


def _is_over(upload: dataset.Upload) -> bool:
    return upload.state in OVER


def _batches(rows: Iterable[Row]) -> Iterator[bytes]:
    """JSON lines, some at a time."""
    lines: list[bytes] = []
    size = 0
    for row in rows:
        line = row.strip() if isinstance(row, bytes) else _line(row)
        if len(line) > ROW_BYTES:
            raise Invalid(f"a row has {len(line)} bytes and a feed takes at most {ROW_BYTES}; upload it in a file")
        if lines and (size + len(line) > BATCH_BYTES or len(lines) == BATCH_ROWS):
            yield b"\n".join([*lines, b""])
            lines, size = [], 0
        if line:
            lines.append(line)
            size += len(line) + 1
    if lines:
        yield b"\n".join([*lines, b""])
