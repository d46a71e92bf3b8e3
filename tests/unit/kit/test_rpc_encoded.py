"""Messages of one bytes field: the same wire form as protobuf's, there and back."""

import pytest

from kit.rpc.encoded import content_of, encoded
from sluice.dataset import v1 as dataset

KIND = dataset.ReadRecordBatchesResponse
content = content_of(KIND, "ipc")


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 1 << 20, 3_000_000])
def test_the_wire_form_is_protobufs(size):
    data = bytes(range(256)) * (size // 256 + 1)
    message = KIND(ipc=data[:size])
    made = encoded(KIND, "ipc", memoryview(data)[:size])
    assert made.wire == message.SerializeToString() and made.ByteSize() == message.ByteSize()
    assert content(made.wire) == data[:size]


def test_nothing_and_more_than_is_known_are_read_too():
    assert content(b"") == b"" and content(encoded(KIND, "ipc", memoryview(b"")).wire) == b""
    newer = KIND(ipc=b"rows").SerializeToString() + b"\x7a\x03new"  # field 15
    assert content(newer) == b"rows"
    assert content(b"\x7a\x03new" + KIND(ipc=b"rows").SerializeToString()) == b"rows"
