"""Events as CloudEvents 1.0 structured JSON, there and back; unknown fields are newer senders, unknown enums poison."""

import json
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from sluice.events import v1 as events


class Undecodable(Exception):
    """The bytes are no event of ours; the text says what is wrong and repeats none of them."""


def encode(event: events.Event) -> bytes:
    """The event as it goes over the bus."""
    head = {
        "specversion": "1.0",
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "time": event.time.ToJsonString(),
        "datacontenttype": "application/json",
        "sequence": str(event.sequence),
    }
    if event.traceparent:
        head["traceparent"] = event.traceparent
    if event.principal:
        head["principal"] = event.principal
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
    return f'{text[:-1]},"data":{event.data_json}}}'.encode()


def decode(payload: bytes) -> events.Event:
    """The event in some bytes. Raises Undecodable."""
    try:
        envelope = json.loads(payload)
        event = events.Event(
            id=envelope["id"],
            type=envelope["type"],
            source=envelope["source"],
            subject=envelope["subject"],
            traceparent=envelope.get("traceparent", ""),
            principal=envelope.get("principal", ""),
            data_json=json.dumps(envelope["data"], ensure_ascii=False, separators=(",", ":")),
            sequence=int(envelope.get("sequence", 0)),
        )
        event.time.FromJsonString(envelope["time"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Undecodable(f"not a CloudEvent ({type(error).__name__})") from None
    if envelope.get("specversion") != "1.0" or not event.id:
        raise Undecodable("not a CloudEvent of version 1.0 with an id")
    return event


def decode_data(event: events.Event, message: type[Message]) -> Message:
    """The event message of the sender. Raises Undecodable, also for an enum value this release does not know."""
    try:
        data = json.loads(event.data_json)
        if not isinstance(data, dict):
            raise Undecodable("the data is no JSON object")
        return ParseDict(_known(data, message.DESCRIPTOR), message())
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError):
        raise Undecodable(f"the data is no {message.DESCRIPTOR.name}, or has an enum value unknown here") from None


def _known(data: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    """The data without fields that this release does not know.

    protobuf's own ``ignore_unknown_fields`` also drops unknown enum values, which would change what was said.
    """
    if descriptor.file.package == "google.protobuf":
        return data
    fields = {name: field for field in descriptor.fields for name in (field.name, field.json_name)}
    return {name: _known_value(value, fields[name]) for name, value in data.items() if name in fields}


def _known_value(value: Any, field: Any) -> Any:
    inner = field.message_type
    if inner is None:
        return value
    if inner.GetOptions().map_entry:
        of = inner.fields_by_name["value"]
        return {key: _known_value(each, of) for key, each in value.items()}
    if isinstance(value, list):
        return [_known(each, inner) if isinstance(each, dict) else each for each in value]
    return _known(value, inner) if isinstance(value, dict) else value
