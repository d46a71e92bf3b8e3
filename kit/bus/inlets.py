"""Events that outside systems send to us: told apart and handed on as they are; what they mean is not known here.

An inlet is a source without a service of ours behind it: no outbox, no log, no authority. Its stream is a work queue
that refuses what does not fit, so that a sender learns of it; what was handled is gone from it.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from kit.bus.cloud_events import Undecodable
from kit.bus.names import stream_of, subjects_of
from kit.store import Unit

#: What an outside event may have, envelope included; a dead letter with its headers must fit into a message as well.
MAX_BYTES = 1000 * 1024
#: What waits of one subject at most, so that one whose events cannot be handled does not fill the stream of all.
MAX_WAITING = 10_000
#: The least that the broker allows. It compares the ids that senders give to messages over all subjects, so that two
#: systems that count from 1 would lose events by it; repeats are known by source and id instead.
DUPLICATE_WINDOW_S = 0.1


class OutsideEvent(NamedTuple):
    """An event as it came. `id` is ours, as theirs is unique with its source only and may be nobody's business."""

    id: str
    subject: str
    data: bytes
    traceparent: str = ""


#: What is done with events of an inlet, in one unit with the record that it was. Where that raises, each is tried
#: alone; one that is Undecodable goes to the dead letters.
InletHandler = Callable[[Unit, Sequence[OutsideEvent]], Awaitable[None]]
#: The handlers by source, such as {"feed": …} for `sluice.feed.v1.>`.
Inlets = Mapping[str, InletHandler]


class _Envelope(msgspec.Struct):
    """CloudEvents 1.0, structured JSON: what must be there, and what we use."""

    specversion: str
    id: str
    source: str
    type: str
    data: msgspec.Raw
    traceparent: str = ""


_decode = msgspec.json.Decoder(_Envelope).decode


def read(subject: str, payload: bytes) -> OutsideEvent:
    """The event that was sent to a subject. Raises Undecodable."""
    if len(payload) > MAX_BYTES:
        raise Undecodable(f"larger than {MAX_BYTES} bytes")
    try:
        payload.decode()  # the parser passes over what it does not keep
        envelope = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"not a CloudEvent with data as JSON ({type(error).__name__})") from None
    if envelope.specversion != "1.0" or not envelope.id or not envelope.source:
        raise Undecodable("not a CloudEvent of version 1.0 with id and source")
    known_by = hashlib.sha256("\0".join((subject, envelope.source, envelope.id)).encode()).hexdigest()
    return OutsideEvent(known_by, subject, bytes(envelope.data), envelope.traceparent)


def stream(source: str, max_waiting: int = MAX_WAITING, *, max_bytes: int, replicas: int) -> StreamConfig:
    """The stream of an inlet. Nothing in it grows old: what was acknowledged to its sender is kept until handled.

    So what cannot be kept is refused: an event that is too large, and one of a subject of which too many wait.
    Where more wait already, from before there was a limit, ``Bus.provision_inlet`` raises it so that none is lost.
    """
    return StreamConfig(
        name=stream_of(source),
        subjects=[subjects_of(source)],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        discard_new_per_subject=True,
        duplicate_window=DUPLICATE_WINDOW_S,
        max_age=0,
        max_bytes=max_bytes,
        max_msg_size=MAX_BYTES,
        max_msgs_per_subject=max_waiting,
        num_replicas=replicas,
    )
