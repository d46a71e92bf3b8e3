"""What can be done to feeds: one function an intent, inside a unit that the caller opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from kit.blobs import BlobStore
from kit.rpc import masks
from kit.rpc.interceptors.validation import validate
from kit.store import Unit, failpoint
from services.dataset import domain, store
from services.dataset.feeds import domain as feeds
from services.dataset.feeds.store import FEEDS, drop_pieces, move_pieces
from sluice.dataset import v1 as dataset


async def create_feed(unit: Unit, parent: str, wanted: dataset.Feed, creator: str) -> dataset.Feed:
    """Makes a feed of a dataset that exists; what it asks of its rows was checked before."""
    await store.DATASETS.get(unit.session, parent)
    created = await FEEDS.insert(unit, feeds.new_feed(parent, wanted, creator))
    unit.emit(dataset.FeedCreated(feed=created.name), created.name)
    return created


async def update_feed(unit: Unit, wanted: dataset.Feed, mask: FieldMask) -> dataset.Feed:
    """Changes what a feed makes of its rows, or when; what is to be asked of them was checked before."""
    present = await FEEDS.get(unit.session, wanted.name)
    masks.apply(present, wanted, mask, feeds.CHANGEABLE)
    feeds.settle(present)
    validate(present)
    changed = await FEEDS.update(unit, present, wanted.etag)
    unit.emit(dataset.FeedUpdated(feed=changed.name), changed.name)
    return changed


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
    blob = await blobs.put(domain.staging(feed.next_upload), _once(content))
    failpoint("feed_piece_stored")
    unit.session.add(
        store.PieceRow(upload=feed.next_upload, start=start, digest=blob.digest, size=blob.size, row_count=len(lines))
    )
    return feed


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
    """Tells the feed that an upload was made of what became of it; rows that made no version wait again."""
    feed = await FEEDS.get(unit.session, upload.feed)
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
