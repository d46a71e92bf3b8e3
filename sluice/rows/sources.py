"""From which names of a file the columns of its rows were read, and which were not used; no value is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from sluice.rows.answers import REJECTED, VERDICTS
from sluice.rows.conventions import PAIRS
from sluice.rows.entities import TOKENS, has_token_tags, name_of_spans, name_of_text
from sluice.rows.fields import LABEL, NEGATIVES, POSITIVE, QUERY, TEXT
from sluice.rows.meanings import MEANINGS
from sluice.rows.mentions import NAMES
from sluice.rows.schemas import BOXES, CAPTIONS, EXPRESSIONS

if TYPE_CHECKING:
    import pyarrow as pa

    from sluice.rows.frames import Frame

Row = Mapping[str, object]
#: Of the columns of a task type, the names that they are read from.
Read = dict[str, list[str]]
#: Names that are told: with more of them, or with longer ones, they may be content. And those that are held.
MOST_TOLD, LONGEST = 50, 40
_MOST_HELD = 1000
#: Ways to leave fields out that are looked at in one frame; what rows have beyond them is not seen.
_MOST_WAYS = 64
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass
class Sources:
    """The names that each column was `read` from, and every name that was `met`, each in the order of the file.

    `sheets_unread` are those of workbooks that were passed over.
    """

    read: dict[str, dict[str, None]] = field(default_factory=dict)
    met: dict[str, None] = field(default_factory=dict)
    sheets_unread: int = 0

    def add(self, other: Sources) -> None:
        """What was found in other rows as well."""
        for column, names in other.read.items():
            self._note(self.read.setdefault(column, {}), names)
        self._note(self.met, other.met)
        self.sheets_unread += other.sheets_unread

    def columns(self) -> Read:
        """The names behind each column, as far as they are told; `id`, `group` and `tags` last."""
        found = {column: [name for name in names if _is_told(name)] for column, names in self.read.items()}
        last = ("images", "videos", "audios", "id", "group", "tags")
        return {name: found[name] for name in sorted(found, key=lambda each: each in last) if found[name]}

    def unused(self) -> tuple[list[str], int]:
        """Names that became nothing, and how many more there are that are not told."""
        used = {name for names in self.read.values() for name in names}
        names = [name for name in self.met if name not in used]
        told = [name for name in names if _is_told(name)] if len(names) <= MOST_TOLD else []
        return told, len(names) - len(told)

    def _note(self, held: dict[str, None], names: Iterable[str]) -> None:
        for name in names:
            if len(held) < _MOST_HELD:
                held[name] = None


def sources(
    frame: Frame, row_schema: str, columns: Mapping[str, str], *, loose: bool, fixed: Mapping[str, str]
) -> Sources:
    """What a frame's rows were read from: ``columns`` are what names were said to mean, ``fixed`` what --fix made of
    others.
    """
    found, wanted = Sources(sheets_unread=frame.sheets_unread), {*MEANINGS, *columns, *fixed}
    for names, row in _ways(frame, wanted):
        found.met.update(dict.fromkeys(names))
        meant = _meant(row, columns, fixed, loose=loose)
        for column, read in _READERS[row_schema]({meaning: row[name] for meaning, name in meant.items()}).items():
            found.read.setdefault(column, {}).update({meant[each]: None for each in read})
    return found


def _ways(frame: Frame, wanted: Collection[str]) -> Iterator[tuple[list[str], dict[str, object]]]:
    """One row for each way in which rows have fields and lack others, with all the names that there are."""
    if frame.columns is not None:
        yield from _ways_of_table(frame.columns, wanted)
        return
    seen: set[tuple[str, ...]] = set()
    for index in range(len(frame)):
        try:
            way = tuple(_keys(frame.row(index)))
            if way in seen or len(seen) == _MOST_WAYS:
                continue
            row = msgspec.json.decode(frame.row(index))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # it is told as a wrong row
            continue
        seen.add(way)
        yield list(way), {name: value for name, value in row.items() if value is not None}


def _ways_of_table(table: pa.Table, wanted: Collection[str]) -> Iterator[tuple[list[str], dict[str, object]]]:
    from sluice.rows.columns import EXPECTED
    from sluice.rows.columns.arrays import column, present

    if not len(table):
        return
    empty = {name for name in table.column_names if table.column(name).null_count == len(table)}
    names = [name for name in table.column_names if name not in empty or name not in EXPECTED]  # a parser adds those
    few = table.select([name for name in names if name in wanted]).combine_chunks()
    ways = np.zeros(len(table), np.uint64)
    for name in few.column_names:
        values = column(few, name)
        if values is not None and values.null_count and name not in empty:
            ways = ways << np.uint64(1) | present(values).astype(np.uint64)
    for index in sorted(map(int, np.unique(ways, return_index=True)[1]))[:_MOST_WAYS]:
        row = few.slice(index, 1).to_pylist()[0] if few.column_names else {}
        yield names, {name: value for name, value in row.items() if value is not None}


def _meant(row: Row, columns: Mapping[str, str], fixed: Mapping[str, str], *, loose: bool) -> dict[str, str]:
    """The names of a row by what they mean; `sluice.rows.repairs.renamed` does the same to its fields."""
    said = {columns[name]: name for name in row if name in columns}
    hidden = {*columns, *(said if loose else columns.values())}
    meant = {name: name for name in row if name not in hidden}
    for old, new in fixed.items():
        if old in meant and new not in meant:
            meant[new] = meant.pop(old)
    return {**meant, **said}


def _is_told(name: str) -> bool:
    return len(name) <= LONGEST and name.isprintable()


# What the readers below tell is what `sluice.rows.schemas` reads; a test holds the one to the other.


def _turns(row: Row) -> tuple[list[str], list[str]]:
    """What is asked, and the last answer; the same for a conversation in one field."""
    if "messages" in row:
        return ["messages"], ["messages"]
    if "conversations" in row:
        return _there(row, "conversations", "system"), ["conversations"]
    pair = max(PAIRS, key=lambda each: (each.question in row) * 2 + (each.answer in row))
    return _asked(row, pair.question, pair.context), _there(row, pair.answer)


def _prompt(row: Row) -> list[str]:
    if "messages" in row or "conversations" in row:
        return _turns(row)[0]
    pair = next((pair for pair in PAIRS if pair.question in row), PAIRS[0])
    return _asked(row, pair.question, pair.context)


def _asked(row: Row, question: str, context: str) -> list[str]:
    if isinstance(row.get(question), list):  # messages have all of it
        return [question]
    return _there(row, question, context, "system", "history") if question in row else []


def _conversation(row: Row) -> Read:
    asked, answer = _turns(row)
    return {"messages": list(dict.fromkeys([*asked, *answer])), **_beside(row)}


def _grounding(row: Row) -> Read:
    answers = ("messages", "conversations", *(pair.answer for pair in PAIRS))
    stands_for: dict[str, str] = {}
    if not any(name in row for name in answers) and (boxes := _first(row, BOXES)):
        stands_for["answer"] = boxes[0]
    if not _asks(row) and (asked := _first(row, EXPRESSIONS)):
        stands_for["question"] = asked[0]
    read = _conversation({**row, **{name: row[other] for name, other in stands_for.items()}})
    return {**read, "messages": [stands_for.get(name, name) for name in read["messages"]]}


def _caption(row: Row) -> Read:
    said = _first(row, CAPTIONS)
    return _conversation(row) if _asks(row) or not said else {"messages": said, **_beside(row)}


def _preference(row: Row) -> Read:
    rejected = _first(row, REJECTED)
    if "chosen" not in row:
        asked, answer = _turns(row)
        return {"prompt": asked, "chosen": answer, "rejected": rejected, **_beside(row)}
    chosen = row["chosen"]
    begins = chosen[0] if isinstance(chosen, list) and chosen and isinstance(chosen[0], dict) else {}
    whole = begins.get("role", "assistant") != "assistant"
    asked = ["chosen"] if whole else _prompt(row)
    return {"prompt": asked, "chosen": ["chosen"], "rejected": rejected, **_beside(row)}


def _feedback(row: Row) -> Read:
    asked, answer = _turns(row)
    if "completion" in row and "messages" not in row and "conversations" not in row:
        asked, answer = _prompt(row), ["completion"]
    return {"prompt": asked, "completion": answer, "label": _first(row, VERDICTS), **_beside(row)}


def _retrieval(row: Row) -> Read:
    read = {"query": QUERY, "positive": POSITIVE, "negatives": NEGATIVES}
    return {**{column: _first(row, names) for column, names in read.items()}, **_beside(row)}


def _classification(row: Row) -> Read:
    return {"text": _first(row, TEXT), "label": _first(row, LABEL), **_beside(row)}


def _entities(row: Row) -> Read:
    fields = dict(row)
    text = [TOKENS] if TOKENS in row else _there(row, name_of_text(fields))
    own = {name: value for name, value in row.items() if name != "tags" or not has_token_tags(fields)}
    return {"text": text, "entities": _there(row, name_of_spans(fields)), **_about(own)}


def _asks(row: Row) -> bool:
    return any(name in row for name in ("messages", "conversations", *(pair.question for pair in PAIRS)))


def _beside(row: Row) -> Read:
    """What a row names, and what it says about itself."""
    named = {kind: _first(row, [name for name in names if row.get(name)]) for kind, names in NAMES.items()}
    return {**{kind: named[kind] or _first(row, NAMES[kind]) for kind in NAMES}, **_about(row)}


def _about(row: Row) -> Read:
    return {name: _there(row, name) for name in ("id", "group", "tags")}


def _first(row: Row, names: Iterable[str]) -> list[str]:
    return next(([name] for name in names if name in row), [])


def _there(row: Row, *names: str) -> list[str]:
    return [name for name in names if name in row]


_READERS: dict[str, Callable[[Row], Read]] = {
    **dict.fromkeys(("sft", "vqa"), _conversation),
    "grounding": _grounding,
    **dict.fromkeys(("caption", "asr"), _caption),
    "pretrain": lambda row: {"text": _there(row, "text"), **_about(row)},
    "preference": _preference,
    "feedback": _feedback,
    "retrieval": _retrieval,
    **dict.fromkeys(("classification", "image-text-classification"), _classification),
    "entities": _entities,
}
