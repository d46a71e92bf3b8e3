"""What a feed is and when its rows become a version; pure, time is an argument.

What rows mean is checked apart, in a process of its own. Here is only seen whether lines are JSON objects, by a parser
that makes nothing of what it reads.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid5

import msgspec

from kit.rpc.errors import Exhausted, Invalid, StateConflict
from kit.rpc.names import parent_of, slug, uuid7
from services.dataset.domain import schema_of
from services.dataset.uploads import demands
from services.dataset.uploads import domain as uploads
from sluice.dataset import v1 as dataset
from sluice.rows.meanings import check_meanings

COMMIT_AFTER = timedelta(hours=1)
COMMIT_ROWS = 10_000
COMMIT_BYTES = 64 << 20
#: Rows of one batch.
MAX_BATCH_ROWS = 10_000
#: What may wait in a feed; no more wrong rows than that can be put aside (`sluice.rows.convert.MAX_REFUSED`).
MAX_WAITING_ROWS = 100_000
MAX_WAITING_BYTES = 512 << 20
#: What people may change.
CHANGEABLE = ("columns", "fix", "on_error", "demands", "commit_after", "commit_rows", "commit_bytes", "paused")
FILE_NAME = "feed.jsonl"
#: RFC 9562 name space of the ids of uploads that rows are gathered for.
GATHERED = UUID("5b0a2c6e-6f0d-4a55-9a3c-0b7d9f5e1c44")
#: The source of events for feeds, as kit.bus has it: the third words of a subject are project, dataset and feed.
SOURCE = "feed"


class _Object(msgspec.Struct):
    """Any JSON object."""


_is_object = msgspec.json.Decoder(_Object).decode


def new_feed(
    parent: dataset.Dataset, wanted: dataset.Feed, creator: str, like: dataset.Upload | None = None
) -> dataset.Feed:
    """A feed as the caller wants it, under the slug of its name; it asks no less of its rows than its dataset does.

    One that names no columns has those of the upload that it is ``like``. Raises Invalid for an unknown meaning.
    """
    check_meanings(wanted.columns)
    feed = dataset.Feed(
        name=f"{parent.name}/feeds/{slug(wanted.display_name)}",
        display_name=wanted.display_name,
        columns=wanted.columns or (like.columns if like else {}),
        fix=wanted.fix,
        on_error=wanted.on_error,
        demands=wanted.demands,
        commit_rows=wanted.commit_rows,
        commit_bytes=wanted.commit_bytes,
        paused=wanted.paused,
        creator=creator,
    )
    if wanted.HasField("commit_after"):
        feed.commit_after.CopyFrom(wanted.commit_after)
    feed.subject = subject_of(feed.name)
    settle(feed)
    ask_no_less(feed, parent)
    return feed


def ask_no_less(feed: dataset.Feed, parent: dataset.Dataset) -> bool:
    """Has a feed ask of its rows what its dataset asks of every upload; whether that is more than it did."""
    least = demands.at_least(feed.demands, parent)
    if least == feed.demands:
        return False
    feed.demands.CopyFrom(least)
    return True


def settle(feed: dataset.Feed) -> None:
    """Puts down what is meant where nothing was said."""
    feed.on_error = feed.on_error or dataset.ON_ERROR_QUARANTINE
    feed.commit_rows = feed.commit_rows or COMMIT_ROWS
    feed.commit_bytes = feed.commit_bytes or COMMIT_BYTES
    if not feed.HasField("commit_after"):
        feed.commit_after.FromTimedelta(COMMIT_AFTER)


def subject_of(feed: str) -> str:
    """`sluice.feed.v1.p.d.f` for `projects/p/datasets/d/feeds/f`; ids hold no dots."""
    _, project, _, of, _, name = feed.split("/")
    return f"sluice.{SOURCE}.v1.{project}.{of}.{name}"


def feed_of(subject: str) -> str:
    """The way back. Raises ValueError for a subject that is of no feed."""
    _, _, _, project, of, name = subject.split(".")
    return f"projects/{project}/datasets/{of}/feeds/{name}"


def lines_of(rows: bytes) -> list[bytes]:
    """The lines with something in them. Raises Invalid naming the first that is no JSON object."""
    lines = [line.strip() for line in rows.split(b"\n")]
    filled = [(number, line) for number, line in enumerate(lines, 1) if line]
    if len(filled) > MAX_BATCH_ROWS:
        raise _no_rows(f"are more than {MAX_BATCH_ROWS} lines; send fewer at a time")
    try:
        rows.decode()  # the parser passes over what it does not keep
    except UnicodeDecodeError:
        raise _no_rows("are not UTF-8; send JSON lines in UTF-8") from None
    for number, line in filled:
        try:
            _is_object(line)
        except (msgspec.MsgspecError, RecursionError):
            raise _no_rows(f"have no JSON object in line {number}; send one object a line") from None
    if not filled:
        raise _no_rows("are empty; send at least one JSON object")
    return [line for _, line in filled]


def take(feed: dataset.Feed, rows: int, size: int, now: datetime) -> None:
    """Counts rows that wait from now on. Raises Exhausted when too much waits already."""
    if feed.waiting_rows + rows > MAX_WAITING_ROWS or feed.waiting_bytes + size > MAX_WAITING_BYTES:
        why = "is paused" if feed.paused else "waits for its last upload to be checked"
        raise Exhausted(
            f"feed `{feed.name}` {why} and holds {feed.waiting_rows} rows; `sluice dataset feed flush` makes a "
            "version of them, then send these again",
            retry_after_s=30.0,
        )
    feed.next_upload = feed.next_upload or _gathered_for(feed)
    if not feed.HasField("waiting_since"):
        feed.waiting_since.FromDatetime(now)
    feed.waiting_rows += rows
    feed.waiting_bytes += size
    feed.taken_rows += rows


def due_at(feed: dataset.Feed) -> datetime | None:
    """When the rows that wait are to become an upload; None while nothing makes that happen by itself.

    Never two uploads at a time: the order of rows is that of their coming. What came back from one that failed waits
    for rows that come after it, or for somebody to ask.
    """
    if feed.checked_upload or not feed.waiting_rows:
        return None
    if feed.flushing:
        return datetime.fromtimestamp(0, UTC)
    if feed.paused or not feed.HasField("waiting_since"):
        return None
    since = feed.waiting_since.ToDatetime(UTC)
    enough = feed.waiting_rows >= feed.commit_rows or feed.waiting_bytes >= feed.commit_bytes
    return since if enough and not feed.returned_rows else since + feed.commit_after.ToTimedelta()


def hand_over(feed: dataset.Feed, now: datetime) -> dataset.Upload:
    """The upload of all that waits, complete; nothing waits afterwards."""
    upload = _upload(feed, now)
    uploads.enter(upload, dataset.UPLOAD_STATE_VALIDATING)
    feed.checked_upload, feed.checked_rows = feed.next_upload, feed.waiting_rows
    _empty(feed)
    return upload


def give_up(feed: dataset.Feed, now: datetime, force: bool) -> dataset.Upload | None:
    """The upload, expired, of all that waits in a feed that is to go; None when nothing does.

    Raises StateConflict for rows that wait or are being checked, unless they may be lost.
    """
    if (feed.waiting_rows or feed.checked_upload) and not force:
        rows = f"holds {feed.waiting_rows} rows" if feed.waiting_rows else f"has {feed.checked_rows} rows being checked"
        raise StateConflict(
            f"feed `{feed.name}` {rows}; `sluice dataset feed flush` makes a version of them first, "
            "`sluice dataset feed delete --force` throws away those that wait"
        )
    if not feed.next_upload:
        return None
    upload = _upload(feed, now)
    uploads.enter(upload, dataset.UPLOAD_STATE_EXPIRED)
    return upload


def _upload(feed: dataset.Feed, now: datetime) -> dataset.Upload:
    upload = dataset.Upload(
        name=feed.next_upload,
        state=dataset.UPLOAD_STATE_OPEN,
        file_name=FILE_NAME,
        size_bytes=feed.waiting_bytes,
        committed_bytes=feed.waiting_bytes,
        creator=feed.creator,
        append=True,
        columns=feed.columns,
        fix=feed.fix,
        on_error=feed.on_error,
        demands=feed.demands,
        feed=feed.name,
    )
    upload.expire_time.FromDatetime(now + uploads.UPLOAD_LIVES)
    return upload


def _gathered_for(feed: dataset.Feed) -> str:
    """The name of the upload that the next rows are for: the same as long as none of them was counted.

    So what a death has left in the space of that name is in the way of nobody, and goes with the rows that come then.
    """
    seed = f"{feed.name}\n{feed.create_time.ToNanoseconds()}\n{feed.taken_rows}"
    return f"{parent_of(feed.name)}/uploads/{uuid5(GATHERED, seed)}"


def note_version(feed: dataset.Feed, upload: dataset.Upload) -> None:
    """Puts down what became of the rows of an upload."""
    feed.checked_upload, feed.checked_rows = "", 0
    feed.dataset_version = upload.dataset_version
    feed.ClearField("failure")


def take_back(feed: dataset.Feed, upload: dataset.Upload) -> None:
    """Lets the rows of an upload that failed wait again, before the others and under another name."""
    feed.failure.CopyFrom(upload.failure)
    feed.next_upload = f"{parent_of(feed.name)}/uploads/{uuid7()}"
    feed.waiting_rows += feed.checked_rows
    feed.returned_rows += feed.checked_rows
    feed.waiting_bytes += upload.size_bytes
    feed.checked_upload, feed.checked_rows = "", 0


def note_lost(feed: dataset.Feed, rows: int, size: int) -> None:
    """Counts rows that waited and cannot be read any more."""
    feed.waiting_rows -= rows
    feed.returned_rows = min(feed.returned_rows, feed.waiting_rows)
    feed.waiting_bytes -= size
    feed.lost_rows += rows
    if not feed.waiting_rows:
        _empty(feed)


def check_demands(feed: dataset.Feed, parent: dataset.Dataset) -> None:
    """Raises Invalid for demands that no feed can make, or that cannot be read."""
    if feed.demands.max_tokens:
        raise Invalid(
            "a feed has no tokenizer to count with; leave the limit of tokens out",
            violations=[("feed.demands.max_tokens", "is not for feeds")],
        )
    demands.check(demands.at_least(feed.demands, parent), schema_of(parent))


def _empty(feed: dataset.Feed) -> None:
    feed.next_upload = ""
    feed.waiting_rows = feed.returned_rows = feed.waiting_bytes = 0
    feed.flushing = False
    feed.ClearField("waiting_since")


def _no_rows(what: str) -> Invalid:
    return Invalid(f"the rows {what}", violations=[("rows", what)])
