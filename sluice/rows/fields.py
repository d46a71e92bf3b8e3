"""Rows of plain fields: a query with what fits it and what does not, or a text with its labels."""

from collections.abc import Sequence

from sluice.rows.violations import RefusedError, missing, shape, text

QUERY = ("query", "anchor", "question", "sentence1")
POSITIVE = ("positive", "positives", "pos", "positive_passages", "response", "answer", "sentence2")
NEGATIVES = ("negatives", "negative", "neg", "hard_negatives", "negative_passages", "rejected_response")
TEXT = ("text", "sentence", "content", "query", "input")
LABEL = ("label", "labels", "label_name", "output")


def matches_of(row: dict[str, object]) -> tuple[str, list[str], list[str]]:
    """Query, positives (one at least) and negatives (perhaps none) of a row; RefusedError when it has none."""
    query = _first(row, QUERY)
    positive = _first(row, POSITIVE)
    negatives = next((name for name in NEGATIVES if name in row), "")
    found = _texts(row[positive], positive)
    if not found:
        raise RefusedError(positive, "empty-list", "one text at least", "an empty list", "fill it in or drop the row")
    return text(row[query], query), found, _texts(row[negatives], negatives) if negatives else []


def labels_of(row: dict[str, object], *, bare: bool = False) -> tuple[str, list[str]]:
    """Text and labels (one at least) of a row; numbers are labels as well. RefusedError when it has none.

    A `bare` row need have no text: it is about something else, such as an image.
    """
    bare = bare and not any(name in row for name in TEXT)
    content, label = "" if bare else _first(row, TEXT), _first(row, LABEL)
    value = row[label]
    labels = [_label(each, label) for each in (value if isinstance(value, list) else [value])]
    if not labels:
        raise RefusedError(label, "empty-list", "one label at least", "an empty list", "fill it in or drop the row")
    return "" if bare else text(row[content], content), labels


def _first(row: dict[str, object], names: Sequence[str]) -> str:
    for name in names:
        if name in row:
            return name
    raise missing(names[0], row, f"give each row a field `{names[0]}`", [each for each in row if each in _ALL])


_ALL = {*QUERY, *POSITIVE, *NEGATIVES, *TEXT, *LABEL, "id", "group", "tags"}


def _texts(value: object, field: str) -> list[str]:
    if not isinstance(value, list):
        return [text(value, field)]
    return [text(each, f"{field}[{index}]") for index, each in enumerate(value)]


def _label(value: object, field: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise RefusedError(field, "wrong-type", "a label", shape(value), f"give `{field}` as text or a whole number")
    return text(value, field).strip()
