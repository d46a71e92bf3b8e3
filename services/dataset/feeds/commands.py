"""What can be done to feeds: one function an intent, inside a unit that the caller opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from google.protobuf.field_mask_pb2 import FieldMask
from sqlmodel import col, select

from kit.blobs import BlobStore
from kit.rpc import masks
from kit.rpc.call import current_call
from kit.rpc.errors import NotFound
from kit.rpc.interceptors.validation import validate
from kit.rpc.names import parent_of
from kit.store import OutboxRow, Unit, event_type, failpoint
from services.dataset import domain, store
from services.dataset.feeds import domain as feeds
from services.dataset.feeds.store import FEEDS, drop_pieces, move_pieces
from services.dataset.uploads import domain as uploads
from sluice.dataset import v1 as dataset
from sluice.rows.meanings import check_meanings


async def create_feed(unit: Unit, parent: str, wanted: dataset.Feed, creator: str) -> dataset.Feed:
    """Makes a feed of a dataset that exists; what it asks of its rows was checked before."""
    of = await store.DATASETS.get(unit.session, parent)
    domain.check_there(of)
    like = await store.newest_upload(unit.session, of)
    created = await FEEDS.insert(unit, feeds.new_feed(of, wanted, creator, like))
    unit.emit(dataset.FeedCreated(feed=created.name), created.name)
    return created


async def update_feed(unit: Unit, wanted: dataset.Feed, mask: FieldMask) -> dataset.Feed:
    """Changes what a feed makes of its rows, or when; what is to be asked of them was checked before."""
    if not mask.paths or "columns" in mask.paths:
        check_meanings(wanted.columns)
    present = await FEEDS.get(unit.session, wanted.name)
    masks.apply(present, wanted, mask, feeds.CHANGEABLE)
    feeds.settle(present)
    feeds.ask_no_less(present, await store.DATASETS.get(unit.session, parent_of(present.name)))
    validate(present)
    changed = await FEEDS.update(unit, present, wanted.etag)
    unit.emit(dataset.FeedUpdated(feed=changed.name), changed.name)
    return changed


async def delete_feed(unit: Unit, name: str, etag: str, force: bool) -> None:
    """Removes a feed. What waits in it becomes an upload that is over, so that its bytes are deleted as those of any.

    An upload of its rows that is being checked comes to its end.
    """
    feed = await FEEDS.get(unit.session, name)
    given_up = feeds.give_up(feed, unit.now, force)
    await FEEDS.delete(unit, name, etag)
    if given_up is not None:
        await store.UPLOADS.insert(unit, given_up)
    unit.emit(dataset.FeedDeleted(feed=name, rows_lost=feed.waiting_rows), name)


async def follow_dataset(unit: Unit, of: dataset.Dataset) -> None:
    """Has the feeds of a dataset ask of their rows what it asks by now."""
    for feed in await FEEDS.find(unit.session, parent=of.name):
        if feeds.ask_no_less(feed, of):
            await FEEDS.update(unit, feed)
            unit.emit(dataset.FeedUpdated(feed=feed.name), feed.name)


async def follow_first(unit: Unit, upload: dataset.Upload) -> None:
    """Has feeds that name no columns take over those of the upload that made the first version of their dataset.

    A feed that is made later has them from the start.
    """
    for feed in await FEEDS.find(unit.session, parent=uploads.dataset_of(upload.name)):
        if upload.columns and not feed.columns:
            feed.columns.update(upload.columns)
            await FEEDS.update(unit, feed)
            unit.emit(dataset.FeedUpdated(feed=feed.name), feed.name)


async def append_rows(unit: Unit, blobs: BlobStore, name: str, lines: Sequence[bytes]) -> dataset.Feed:
    """Stores rows, encrypted, and lets them wait.

    The blob is written inside the unit: so a repeat of a request writes none, and none is written into the space of an
    upload that was handed over meanwhile.
    """
    feed = await FEEDS.get(unit.session, name)
    content = b"\n".join([*lines, b""])
    start = feed.waiting_bytes
    feeds.take(feed, len(lines), len(content), unit.now)
    feed = await FEEDS.update(unit, feed)  # first: two who append at a time meet here, and one comes again
    await _note_who(unit, feed)
    blob = await blobs.put(uploads.staging(feed.next_upload), _once(content))
    failpoint("feed_piece_stored")
    unit.session.add(
        store.PieceRow(upload=feed.next_upload, start=start, digest=blob.digest, size=blob.size, row_count=len(lines))
    )
    return feed


async def _note_who(unit: Unit, feed: dataset.Feed) -> None:
    """Tells once of each who sends rows for an upload: an event for each row would be more than the rows."""
    told, who = dataset.RowsAppended(feed=feed.name, upload=feed.next_upload), current_call().principal.name
    query = select(OutboxRow.id).where(
        col(OutboxRow.subject) == feed.next_upload,
        col(OutboxRow.principal) == who,
        col(OutboxRow.type) == event_type(type(told)),
    )
    if (await unit.session.exec(query.limit(1))).first() is None:
        unit.emit(told, feed.next_upload)


async def flush_feed(unit: Unit, name: str) -> dataset.Feed:
    """Asks for a version of the rows that wait."""
    feed = await FEEDS.get(unit.session, name)
    if not feed.waiting_rows or feed.flushing:
        return feed
    feed.flushing = True
    return await FEEDS.update(unit, feed)


async def hand_over(unit: Unit, name: str) -> None:
    """Makes an upload of the rows that wait, if they still are to become one."""
    feed = await FEEDS.get(unit.session, name)
    due = feeds.due_at(feed)
    if due is None or due > unit.now:
        return
    await store.UPLOADS.insert(unit, feeds.hand_over(feed, unit.now))
    await FEEDS.update(unit, feed)


async def settle_upload(unit: Unit, upload: dataset.Upload) -> None:
    """Tells the feed that an upload was made of what became of it; rows that made no version wait again.

    Where there is no such feed any more, they go with what was gathered of the upload.
    """
    try:
        feed = await FEEDS.get(unit.session, upload.feed)
    except NotFound:  # deleted meanwhile
        return
    if upload.state == dataset.UPLOAD_STATE_COMMITTED:
        feeds.note_version(feed, upload)
    else:
        gathered = feed.next_upload
        feeds.take_back(feed, upload)
        await move_pieces(unit, upload.name, gathered, feed.next_upload)
    await FEEDS.update(unit, feed)


async def drop_lost(unit: Unit, name: str, upload: str, starts: Collection[int]) -> None:
    """Takes pieces that cannot be read out of those that wait for an upload."""
    feed = await FEEDS.get(unit.session, name)
    if feed.next_upload != upload:
        return
    lost = await drop_pieces(unit, upload, starts)
    feeds.note_lost(feed, sum(piece.row_count for piece in lost), sum(piece.size for piece in lost))
    feed.ClearField("failure")
    await FEEDS.update(unit, feed)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
