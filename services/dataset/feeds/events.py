"""What comes on `sluice.feed.v1.{project}.{dataset}.{feed}`: rows of outside systems, handed to their feeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from kit.blobs import BlobStore
from kit.bus import Inlets, OutsideEvent
from kit.bus.cloud_events import Undecodable
from kit.rpc.errors import Invalid, NotFound
from kit.store import Unit
from services.dataset.feeds import commands as feeds_commands
from services.dataset.feeds import domain as feeds

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode


def inlets(blobs: BlobStore) -> Inlets:
    """What is done with events of outside systems."""
    return {feeds.SOURCE: partial(take_rows, blobs)}


async def take_rows(blobs: BlobStore, unit: Unit, events: Sequence[OutsideEvent]) -> None:
    """Hands the rows of events to their feeds: the `data` of each, or what lies in `data.rows` when nothing else does.

    Raises Undecodable for what holds no rows, or is for no feed there is: it is kept with the dead letters.
    """
    rows: dict[str, list[bytes]] = {}
    try:
        for event in events:
            lines = feeds.lines_of(b"\n".join(_rows(event.data)))
            rows.setdefault(feeds.feed_of(event.subject), []).extend(lines)
        for feed, lines in rows.items():
            await feeds_commands.append_rows(unit, blobs, feed, lines)
    except NotFound:
        raise Undecodable("there is no such feed") from None
    except Invalid as error:
        raise Undecodable(error.message) from None
    except (ValueError, RecursionError) as error:  # of msgspec, too
        raise Undecodable(f"no rows in it ({type(error).__name__})") from None


def _rows(data: bytes) -> list[bytes]:
    fields = _decode_fields(data)
    rows = _decode_rows(fields["rows"]) if fields.keys() == {"rows"} else [msgspec.Raw(data)]
    return [_one_line(bytes(row)) for row in rows]


def _one_line(row: bytes) -> bytes:
    """In JSON a text holds no bare line break."""
    return row.replace(b"\n", b" ").replace(b"\r", b" ")
