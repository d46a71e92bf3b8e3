"""The compiled contract as data: its services and which rpcs may be repeated; it serves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool

READS = ("Get", "List", "Watch", "Read", "WhoAmI")
REPEATABLE = (MethodOptions.IDEMPOTENT, MethodOptions.NO_SIDE_EFFECTS)


@cache
def _files() -> tuple[FileDescriptorProto, ...]:
    image = FileDescriptorSet.FromString(files("sluice").joinpath("descriptors.binpb").read_bytes())
    for file in image.file:
        file.ClearField("source_code_info")
    return tuple(image.file)


def pool() -> DescriptorPool:
    """A pool with every file of the contract, to reflect services that this process does not import."""
    made = DescriptorPool()
    for file in _files():  # the image lists a file after those it imports
        made.Add(file)
    return made


def service_names() -> list[str]:
    """The full names of all services of the suite, such as `sluice.dataset.v1.DatasetService`."""
    return [f"{file.package}.{service.name}" for file in _ours() for service in file.service]


@cache
def repeatable_methods() -> tuple[tuple[str, str], ...]:
    """(service, method) of each rpc that may be sent twice: reads, and those with a `request_id`."""
    with_request_id = {
        f".{file.package}.{message.name}"
        for file in _ours()
        for message in file.message_type
        if any(field.name == "request_id" for field in message.field)
    }
    return tuple(
        (f"{file.package}.{service.name}", method.name)
        for file in _ours()
        for service in file.service
        for method in service.method
        if not method.client_streaming
        and (
            method.name.startswith(READS)
            or method.input_type in with_request_id
            or method.options.idempotency_level in REPEATABLE
        )
    )


def _ours() -> Iterator[FileDescriptorProto]:
    return (file for file in _files() if file.package.startswith("sluice."))
