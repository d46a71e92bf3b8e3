"""Parts of a reward from words, for who does not write a file; what they mean is the recipes' matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError

from kit.rpc.errors import Invalid
from sluice.trainer import v1 as trainer

#: What may stand after the name of a source: its one setting.
SETTING = {"contains": "text", "number_equal": "tolerance", "pattern": "regex", "length": "at_most"}
SETTING["judge"] = "endpoint"
SOURCES = tuple(field.name for field in trainer.Reward.DESCRIPTOR.oneofs_by_name["source"].fields)


def rewards(value: object) -> list[trainer.Reward]:
    """Each part, given as a message, as its fields (`{"contains": {"text": "sorry"}, "weight": -1}`) or as words:
    `exact_match`, `length:80`, `judge:fair*0.5`, several with commas between them. Raises Invalid.
    """
    each = value if isinstance(value, list | tuple) else str(value).split(",")
    return [one if isinstance(one, trainer.Reward) else _reward(one) for one in each]


def _reward(one: object) -> trainer.Reward:
    fields = dict(one) if isinstance(one, Mapping) else _fields(str(one).strip())
    try:
        return ParseDict(fields, trainer.Reward())
    except ParseError as error:
        raise Invalid(f"a reward cannot be read: {error}; take one of {', '.join(SOURCES)}") from None


def _fields(words: str) -> dict[str, Any]:
    said, times, weight = words.rpartition("*")
    said = said if times else words
    name, colon, setting = said.partition(":")
    if name not in SOURCES:
        raise Invalid(f"there is no reward `{name}`; take one of {', '.join(SOURCES)}")
    if colon and name not in SETTING:
        raise Invalid(f"the reward `{name}` takes no setting in words; write it in a file: --file spec.yaml")
    fields: dict[str, Any] = {name: {SETTING[name]: setting} if colon else {}}
    if times:
        try:
            fields["weight"] = float(weight)
        except ValueError:
            raise Invalid(f"the reward `{words}` has the weight `{weight}`; write a number, as in `{name}*2`") from None
    return fields
