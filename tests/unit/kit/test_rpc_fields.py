"""The walk over what may be text in a message: protobuf's own walk, without a look at the bytes."""

import tracemalloc

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from kit.rpc import contract
from kit.rpc.fields import texts_and_messages
from sluice.dataset import v1 as dataset

TEXT, DEPTH = FieldDescriptor.TYPE_STRING, 4
OTHERS = {FieldDescriptor.TYPE_STRING: "a", FieldDescriptor.TYPE_BYTES: b"a"}


def requests():
    """A class of messages of each kind that an rpc of the suite takes."""
    pool = contract.pool()
    services = map(pool.FindServiceByName, contract.service_names())
    return {GetMessageClass(method.input_type) for service in services for method in service.methods}


def fill(message, depth=DEPTH):
    """Sets every field, so far down; of those that exclude each other the last one stays."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is None:
            value = OTHERS.get(field.type, 1)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
        elif field.message_type.GetOptions().map_entry:
            key, of = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            at = OTHERS.get(key.type, 1)
            if of.message_type is None:
                getattr(message, field.name)[at] = OTHERS.get(of.type, 1)
            elif depth:
                fill(getattr(message, field.name)[at], depth - 1)
        elif depth:
            inner = getattr(message, field.name)
            fill(inner.add() if field.is_repeated else inner, depth - 1)
    return message


def compare(message):
    """That both walks give the same here and below; returns how many fields they gave."""
    wanted = [pair for pair in message.ListFields() if pair[0].type == TEXT or pair[0].message_type is not None]
    assert list(texts_and_messages(message)) == wanted
    count = len(wanted)
    for field, value in wanted:
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            count += sum(map(compare, value if field.is_repeated else [value]))
    return count


def test_it_gives_what_protobuf_gives_of_every_request_filled_and_empty():
    assert sum(compare(fill(kind())) for kind in requests()) > 400
    assert sum(compare(kind()) for kind in requests()) == 0


def test_what_is_set_and_empty_is_there_where_protobuf_can_tell():
    message = dataset.CreateDatasetRequest()
    message.dataset.SetInParent()
    assert compare(message) == 1
    assert compare(dataset.CreateDatasetRequest(parent="")) == 0


def test_it_copies_no_bytes():
    request = dataset.WriteUploadRequest(name="n", data=bytes(2 << 20))
    list(texts_and_messages(request))
    tracemalloc.start()
    try:
        assert [value for _, value in texts_and_messages(request)] == ["n"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
