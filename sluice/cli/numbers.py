"""The numbers of versions as tables: statistics, repeated rows, differences; it asks no suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sluice.cli import screen, words

if TYPE_CHECKING:
    from sluice.dataset import v1 as dataset

SPLITS = ("train", "validation", "test")
MAX_LINES = 10
_BAR = 16


class Line(NamedTuple):
    """Something, how many rows, and of how many in all."""

    name: str
    number: int
    whole: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.number / max(self.whole, 1)


class Spread(NamedTuple):
    """What is counted, how it is distributed, and how many texts are empty."""

    name: str
    lengths: dataset.LengthStatistics
    empty: int | None = None


SPREADS: screen.Columns = {
    "": lambda each: each.name,
    "COUNT": lambda each: each.lengths.count,
    "EMPTY": lambda each: "" if each.empty is None else str(each.empty),
    "MIN": lambda each: each.lengths.min,
    "5 %": lambda each: each.lengths.p5,
    "50 %": lambda each: each.lengths.p50,
    "95 %": lambda each: each.lengths.p95,
    "MAX": lambda each: each.lengths.max,
}
TWINS: screen.Columns = {
    "ROW": lambda each: each.row,
    "SPLIT": lambda each: each.split,
    "REPEATS": lambda each: each.twin,
    "SIMILAR": lambda each: "the same" if each.exact else percent(each.similar),
}
CLUSTERS: screen.Columns = {
    "ROWS": lambda each: each.rows,
    "": lambda each: "all the same" if each.exact else "nearly the same",
    "NUMBERS": lambda each: numbers(each.first, each.rows),
}


def percent(share: float) -> str:
    """`12.3 %`; what is little is not called nothing."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{share * 100:.1f} %" if 0 < share < 1 else f"{share * 100:.0f} %"


def numbers(first: Sequence[int], count: int, most: int = 5) -> str:
    """`4, 141, 142 …`: the first of so many rows."""
    if not first:
        return ""
    shown = ", ".join(str(number) for number in first[:most])
    return f"{shown} …" if count > min(len(first), most) else shown


def show_statistics(name: str, found: dataset.VersionStatistics) -> None:
    """What the rows of a version are like."""
    screen.put(screen.heading(f"{name}: {_rows(found.rows)}, {words.size(found.text_bytes)} of text"))
    _shares("splits", "split", _in_order({split: each.rows for split, each in found.splits.items()}))
    spreads = [Spread("characters of a row", found.characters)] if found.HasField("characters") else []
    for field, each in sorted(found.fields.items()):
        if each.HasField("characters"):
            spreads.append(Spread(f"characters in {field}", each.characters, each.empty))
        if each.HasField("items") and each.items.max > 1:
            spreads.append(Spread(f"{field} of a row", each.items))
    spreads += [
        Spread(title, getattr(found.images, part)) for part, title in IMAGES.items() if found.images.HasField(part)
    ]
    _section("lengths", spreads, SPREADS)
    if found.roles:
        _shares("messages by role", "role", dict(sorted(found.roles.items(), key=lambda item: -item[1])))
    if found.HasField("labels"):
        _labels(found.labels)
    if found.HasField("answers"):
        _answers(found.answers)
    if found.HasField("languages"):
        title = f"languages of {_rows(found.languages.sampled)}, at times mistaken on a few words"
        _shares(title, "language", _few({each.code: each.count for each in found.languages.shares}))


IMAGES = {
    "assets": "assets of a row",
    "width": "pixels across",
    "height": "pixels down",
    "pixels": "pixels of an image",
}


def _labels(found: dataset.LabelStatistics) -> None:
    counts = {each.value: each.rows for each in found.top}
    different = f"{found.distinct}" if found.HasField("distinct") else "more than 10 000"
    _shares(f"labels: {different} different", "label", _few(counts, found.total))


def _answers(found: dataset.AnswerStatistics) -> None:
    facts = {"empty": found.empty, "the most frequent": found.most_frequent}
    if found.HasField("distinct"):
        facts["different"] = found.distinct
    _shares(f"answers of {_rows(found.count)}", "answer", facts, found.count)


def show_duplicates(name: str, found: dataset.VersionDuplicates) -> None:
    """Which rows of a version repeat others."""
    near = f"near to an earlier one (from {found.threshold:g} on)"
    leaked = "held-out rows"
    facts = [
        Line("the same as an earlier one", found.exact, found.rows),
        Line(near, found.near, found.rows),
        Line("the same, with another label", found.conflicting_labels, found.rows),
        Line(f"{leaked} that are in train too", found.leaked_exact, found.held_out),
        Line(f"{leaked} near to one in train", found.leaked_near, found.held_out),
    ]
    columns: screen.Columns = {
        "REPEATED ROWS": lambda each: each.name,
        "ROWS": lambda each: each.number,
        "SHARE": lambda each: percent(each.share),
        "OF": lambda each: each.whole,
    }
    screen.put("")
    screen.put(screen.table(facts, columns))
    if found.compared < found.rows:
        text = f"near rows were looked for among {found.compared} of {found.rows}: there may be more"
        screen.put(screen.heading(text))
    _section(f"{found.clusters} groups of rows, the largest first", found.largest[:MAX_LINES], CLUSTERS)
    _section("held-out rows that are trained on", found.leaked_first[:MAX_LINES], TWINS)


def show_difference(older: str, newer: str, found: dataset.VersionDifference) -> None:
    """Which rows only one of two versions has."""

    class Change(NamedTuple):
        name: str
        rows: int
        splits: Mapping[str, int]
        first: Sequence[int]

    changes = [
        Change(f"only in {newer}", found.added.rows, found.added.splits, found.added.first),
        Change(f"only in {older}", found.removed.rows, found.removed.splits, found.removed.first),
        Change("in both", found.kept, {}, ()),
    ]
    columns: screen.Columns = {
        "": lambda each: each.name,
        "ROWS": lambda each: each.rows,
        "SPLITS": lambda each: ", ".join(f"{rows} {split}" for split, rows in _in_order(each.splits).items()),
        "NUMBERS": lambda each: numbers(each.first, each.rows, 3),
    }
    screen.put(screen.table(changes, columns))


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}".replace(",", " ")


def _in_order(splits: Mapping[str, int]) -> dict[str, int]:
    return {split: splits[split] for split in (*SPLITS, *sorted(splits.keys() - {*SPLITS})) if split in splits}


def _few(counts: Mapping[str, int], whole: int = 0) -> dict[str, int]:
    """The first of them, and all others in one line."""
    shown = dict(list(counts.items())[:MAX_LINES])
    rest = (whole or sum(counts.values())) - sum(shown.values())
    return {**shown, "all others": rest} if rest else shown


def _shares(title: str, kind: str, counts: Mapping[str, int], whole: int = 0) -> None:
    whole = whole or sum(counts.values())
    lines = [Line(name, number, whole) for name, number in counts.items()]
    columns: screen.Columns = {
        kind.upper(): lambda each: each.name,
        "ROWS" if kind != "role" else "MESSAGES": lambda each: each.number,
        "SHARE": lambda each: percent(each.share),
        "": lambda each: "█" * round(_BAR * each.share),
    }
    _section(title, lines, columns)


def _section(title: str, items: Sequence[object], columns: screen.Columns) -> None:
    if items:
        screen.put("")
        screen.put(screen.titled(title, items, columns))
