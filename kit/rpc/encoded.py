"""A message of one bytes field to and from its wire form with one copy, where protobuf makes three of each mebibyte.

Nothing else about the message changes: its wire form is protobuf's own (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.message import Message


class Encoded(NamedTuple):
    """A response in its wire form, which goes out as it is."""

    wire: bytes

    def ByteSize(self) -> int:
        """Bytes on the wire."""
        return len(self.wire)


def encoded(kind: type[Message], field: str, content: memoryview) -> Encoded:
    """A message of this kind that has only ``content``, in a field of bytes."""
    return Encoded(b"".join((_tag(kind, field), _varint(content.nbytes), content)))


def content_of(kind: type[Message], field: str) -> Callable[[bytes], memoryview]:
    """What gives the content of a field of bytes out of the wire form of a message of this kind."""
    tag = _tag(kind, field)

    def content(wire: bytes) -> memoryview:
        size, shift, at = 0, 0, len(tag)
        if wire.startswith(tag):
            for at in range(len(tag), min(len(tag) + 10, len(wire))):
                size |= (wire[at] & 0x7F) << shift
                shift += 7
                if wire[at] < 0x80:
                    break
            if at + 1 + size == len(wire) and wire[at] < 0x80:
                return memoryview(wire)[at + 1 :]
        return memoryview(getattr(kind.FromString(wire), field))  # from a newer suite, which tells more

    return content


def _tag(kind: type[Message], field: str) -> bytes:
    """Field number and wire type 2, which is "length, then so many bytes"."""
    return _varint(kind.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
