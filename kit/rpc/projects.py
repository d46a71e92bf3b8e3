"""Which projects a request is about, read off the resource names in it; it knows no message by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kit.rpc.errors import Invalid
from kit.rpc.fields import texts_and_messages
from kit.rpc.names import project_of

OWN_FIELDS = ("name", "parent")


def projects_of(message: Message) -> list[str]:
    """The projects that a request names, each once, in the order of its fields; empty when it names none.

    Raises Invalid when `name` or `parent` starts with `projects/` and is no resource name: such a call
    must not pass for one that is about no project.
    """
    return list(dict.fromkeys(_projects(message)))


def _projects(message: Message) -> Iterator[str]:
    for field, value in texts_and_messages(message):
        for part in _parts(field, value):
            if isinstance(part, Message):
                yield from _projects(part)
            elif isinstance(part, str) and part.startswith("projects/"):
                if project := project_of(part):
                    yield project
                elif field.name in OWN_FIELDS:
                    raise Invalid(
                        f"{field.name} is not a resource name such as `projects/p/datasets/d`",
                        violations=[(field.name, "is not a resource name")],
                    )


def _parts(field: FieldDescriptor, value: Any) -> list[Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return list(value.values())
    if field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
        return []
    if field.message_type is not None and not field.message_type.full_name.startswith("sluice."):
        return []
    return list(value) if field.is_repeated else [value]
