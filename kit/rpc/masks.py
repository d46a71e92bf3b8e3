"""Field masks of Update rpcs (AIP-134): copies the fields a caller may change; it stores nothing."""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from kit.rpc.errors import Invalid


def apply(target: Message, source: Message, mask: FieldMask, allowed: Collection[str]) -> list[str]:
    """Copies the masked fields of ``source`` to ``target``, gives their paths; an empty mask means all.

    A field that is absent in the source is cleared in the target; repeated fields are replaced whole.
    Raises Invalid (INVALID_FIELD) for a path that is not allowed, naming those that are.
    """
    paths = list(dict.fromkeys(mask.paths)) or list(allowed)
    unknown = [path for path in paths if path not in allowed]
    if unknown:
        known = ", ".join(f"`{path}`" for path in allowed)
        raise Invalid(
            f"update_mask names `{unknown[0]}`, which cannot be changed; what can be is {known}",
            violations=[("update_mask", f"`{path}` cannot be changed") for path in unknown],
        )
    for path in paths:
        _copy(target, source, path.split("."))
    return paths


def _copy(target: Message, source: Message, path: list[str]) -> None:
    field, *rest = path
    if rest:
        _copy(getattr(target, field), getattr(source, field), rest)
        return
    part = type(source)()
    target.ClearField(field)
    for descriptor, _ in source.ListFields():
        if descriptor.name != field:
            continue
        part.CopyFrom(source)
        for other, _ in source.ListFields():
            if other.name != field:
                part.ClearField(other.name)
        target.MergeFrom(part)
