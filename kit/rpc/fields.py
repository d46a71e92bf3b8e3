"""The fields of a message that may hold texts, walked without a look at the others; what they mean is not known here.

Protobuf's own walk, `ListFields`, copies every bytes field that it passes: a mebibyte for each chunk of an upload.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message


def texts_and_messages(message: Message) -> Iterator[tuple[FieldDescriptor, Any]]:
    """Fields of strings and of messages, maps among them, that are set, with their values, by field number.

    These are the pairs that `ListFields` gives, less those of all other types.
    """
    for field in _walked(message.DESCRIPTOR):
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.has_presence or value:
            yield field, value


@cache
def _walked(of: Descriptor) -> tuple[FieldDescriptor, ...]:
    fields = (each for each in of.fields if each.type == FieldDescriptor.TYPE_STRING or each.message_type is not None)
    return tuple(sorted(fields, key=lambda field: field.number))
