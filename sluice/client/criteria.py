"""What a caller looks for, as a filter of the contract (AIP-160); it asks nobody whether there is any such thing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kit.rpc.errors import Invalid
from sluice.dataset import v1 as dataset

CLASSIFICATIONS = {
    dataset.CLASSIFICATION_PUBLIC: "public",
    dataset.CLASSIFICATION_INTERNAL: "internal",
    dataset.CLASSIFICATION_SENSITIVE: "sensitive",
}
KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def joined(filter: str, search: str, tags: Sequence[str]) -> str:
    """A filter that asks for all of it; nothing in ``search`` or in a tag is an operator, but a `*` at a word's end."""
    parts = [f"({filter})"] if filter.strip() and (search.strip() or tags) else [filter] if filter.strip() else []
    return " AND ".join([*parts, *(_word(word) for word in search.split()), *(_tag(tag) for tag in tags)])


def quoted(text: str) -> str:
    """A text as a value of a filter."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def classification(word: str) -> dataset.Classification:
    """`sensitive` as its number, that of nothing for an empty word; raises Invalid for another."""
    if not word:
        return dataset.CLASSIFICATION_UNSPECIFIED
    for number, name in CLASSIFICATIONS.items():
        if word.lower() == name:
            return number
    raise Invalid(f"there is no classification `{word}`; it is one of {', '.join(CLASSIFICATIONS.values())}")


def _word(word: str) -> str:
    return word if re.fullmatch(r"\w+\*", word) else quoted(word)


def _tag(tag: str) -> str:
    key, equals, value = tag.partition("=")
    if not KEY.fullmatch(key):
        raise Invalid(f"`{tag}` is no tag; write key=value or a key, such as language=zh")
    return f"tags.{key} = {quoted(value)}" if equals else f"tags:{key}"
