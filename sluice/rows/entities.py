"""Texts with named spans, read from the ways in which the field writes them; what names there are is not judged.

Read are tokens with a tag each (CoNLL, and Hugging Face's `tokens` and `ner_tags`), and a text with spans: objects
(Label Studio's short form, Doccano, spaCy, Prodigy) or `[start, end, label]` (spaCy, Doccano). Places are characters.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from sluice.rows.canonical import Entity
from sluice.rows.violations import RefusedError, missing, shape, text
from sluice.spans import Span, spans_of, trimmed

TOKENS, TAGS = "tokens", ("ner_tags", "tags", "labels")
TEXT = ("text", "sentence", "content")
SPANS = ("entities", "spans", "label", "labels")
STARTS, ENDS, NAMES = ("start", "start_offset"), ("end", "end_offset"), ("label", "labels", "type")
EVERY_NAME = frozenset({TOKENS, *TAGS, *TEXT, *SPANS})
#: Scripts that put no space between words.
_UNSPACED = re.compile("[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_PLACES = "count characters from 0, the end not among them"
_AS_SPANS = 'give {"start": 0, "end": 4, "label": "…"}'


def entities_of(row: dict[str, object]) -> tuple[str, list[Entity]]:
    """The text of a row and its spans, in their order and apart; RefusedError when it has none, or they cross."""
    said, spans = _of_tokens(row) if TOKENS in row else _of_text(row)
    once = sorted(set(spans))
    for before, after in pairwise(once):
        if after.start < before.end:
            raise RefusedError(
                name_of_spans(row),
                "crossing-spans",
                "spans that share no character",
                f"{before.start} to {before.end}, and {after.start} to {after.end}",
                "keep one of the two",
            )
    return said, [Entity(span.start, span.end, span.label) for span in once]


def name_of_spans(row: dict[str, object]) -> str:
    """The field that spans are read from."""
    names = TAGS if TOKENS in row else SPANS
    return next((name for name in names if name in row), names[0])


def name_of_text(row: dict[str, object]) -> str:
    """The field that the text is read from."""
    return next((name for name in TEXT if name in row), TEXT[0])


def has_token_tags(row: dict[str, object]) -> bool:
    """Whether `tags` are those of the tokens, and not words to find the row by."""
    return TOKENS in row and name_of_spans(row) == "tags"


def _of_tokens(row: dict[str, object]) -> tuple[str, list[Span]]:
    field = name_of_spans(row)
    if field not in row:
        raise missing(field, row, f"give each token its tag in `{field}`", (TOKENS, "id", "group"))
    tokens, tags = _listed(row[TOKENS], TOKENS, "tokens"), _listed(row[field], field, "tags")
    if len(tokens) != len(tags):
        wanted = f"a tag for each of {len(tokens)} tokens"
        raise RefusedError(field, "unequal-lengths", wanted, f"{len(tags)} tags", "give each its own")
    for index, tag in enumerate(tags):
        if not isinstance(tag, str) or not tag.strip():
            repair = "give tags as words such as `B-PER`, not as numbers of a list that is elsewhere"
            raise RefusedError(f"{field}[{index}]", "wrong-type", "a tag such as `B-PER` or `O`", shape(tag), repair)
    for index, token in enumerate(tokens):
        if not isinstance(token, str):
            raise RefusedError(f"{TOKENS}[{index}]", "wrong-type", "text", shape(token), "give each token as text")
    said, offsets = _joined([str(token) for token in tokens])
    if not said.strip():
        raise RefusedError(TOKENS, "empty-text", "text that is not empty", shape(""), "fill it in or drop the row")
    return said, spans_of(said, offsets, [str(tag).strip() for tag in tags])


def _joined(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The tokens as a text, with a space between those whose scripts have spaces, and the place of each."""
    said, offsets = "", []
    for token in (each.strip() for each in tokens):
        if said and token and not (_UNSPACED.match(said[-1]) or _UNSPACED.match(token[0])):
            said += " "
        offsets.append((len(said), len(said) + len(token)))
        said += token
    return said, offsets


def _of_text(row: dict[str, object]) -> tuple[str, list[Span]]:
    for wanted, name in ((TEXT[0], name_of_text(row)), (SPANS[0], name_of_spans(row))):
        if name not in row:
            known = [each for each in row if each in EVERY_NAME]
            raise missing(wanted, row, f"give each row a field `{wanted}`", known)
    said, field = text(row[name_of_text(row)], name_of_text(row)), name_of_spans(row)
    listed = _listed(row[field], field, "spans") if row[field] != [] else []
    return said, [_span(value, f"{field}[{index}]", said) for index, value in enumerate(listed)]


def _listed(value: object, field: str, what: str) -> list[object]:
    if not isinstance(value, list) or not value:
        kind = "empty-list" if value == [] else "wrong-type"
        raise RefusedError(field, kind, f"a list of {what}", shape(value), "fill it in or drop the row")
    return value


def _span(value: object, field: str, said: str) -> Span:
    start: Any
    end: Any
    if isinstance(value, dict):
        start, end, label = (next((value[n] for n in names if n in value), None) for names in (STARTS, ENDS, NAMES))
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
        quoted = value.get("text")
    elif isinstance(value, list) and len(value) == 3:
        (start, end, label), quoted = value, None
    else:
        raise RefusedError(field, "wrong-type", "a span with its label", shape(value), _AS_SPANS)
    if not isinstance(label, str) or not label.strip():
        raise RefusedError(field, "wrong-type", "a span with one label", shape(label), _AS_SPANS)
    if not _is_place(start) or not _is_place(end):
        raise RefusedError(field, "wrong-type", "places as whole numbers", shape(value), _AS_SPANS)
    if not 0 <= start < end <= len(said):
        found = f"one from {start} to {end}"
        raise RefusedError(field, "wrong-span", f"a span within {len(said)} characters", found, _PLACES)
    if isinstance(quoted, str) and quoted.strip() != said[start:end].strip():
        raise RefusedError(field, "wrong-span", "a span whose text stands at its place", "another text there", _PLACES)
    start, end = trimmed(said, start, end)
    if start == end:
        raise RefusedError(field, "empty-text", "a span that is not empty", "a span of spaces", "drop the span")
    return Span(start, end, label.strip())


def _is_place(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
