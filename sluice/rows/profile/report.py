"""The numbers of a dataset as one HTML file, without scripts and without anything fetched; it reads no rows."""

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from sluice.rows.profile.duplicates import Duplicates
from sluice.rows.profile.figures import Answers, Labels, Statistics
from sluice.rows.profile.languages import UNDETERMINED
from sluice.rows.profile.sketches import Lengths
from sluice.rows.profile.words import WORDS

if TYPE_CHECKING:
    from jinja2 import Template

#: The page shows fewer labels than the numbers hold.
SHOWN_LABELS = 25
_IMAGE_NUMBERS = ("assets", "width", "height", "pixels")


class PlotsMissingError(RuntimeError):
    """The libraries that draw and fill in the page are not installed."""


class Share(NamedTuple):
    """A line of a table of shares."""

    name: str
    number: int
    share: float


class Shape(NamedTuple):
    """A distribution, and how it is drawn."""

    title: str
    lengths: Lengths
    plot: str
    counted: str
    note: str
    wide: bool


class Figure(NamedTuple):
    """One of the large numbers at the top."""

    name: str
    value: str
    unit: str = ""
    bad: bool = False


def report(
    statistics: Statistics,
    *,
    title: str,
    subtitle: str = "",
    duplicates: Duplicates | None = None,
    previews: Sequence[str] = (),
    lang: str = "en",
) -> str:
    """Return the page, in English or (`lang` beginning with `zh`) Chinese; the same input gives the same bytes.

    It holds labels, but nothing else of what rows say, unless `previews` gives some as texts. PlotsMissingError where
    the extra `report` is not installed.
    """
    language = "zh" if lang.lower().startswith("zh") else "en"
    words = WORDS[language]
    try:
        template = _template()
        shapes = _distributions(statistics, words)
    except ModuleNotFoundError as error:
        raise PlotsMissingError("the report needs matplotlib and jinja2; install `sluice[report]`") from error
    return template.render(
        lang={"zh": "zh-Hans", "en": "en"}[language],
        words=words,
        title=title,
        subtitle=subtitle,
        figures=_figures(statistics, duplicates, words),
        splits=_shares({name or words["no_split"]: statistics.splits[name].rows for name in _in_order(statistics)}),
        distributions=shapes,
        fields=[(name, field) for name, field in statistics.fields.items() if field.characters],
        roles=_shares(statistics.roles),
        labels=_labels(statistics.labels, words),
        label_note=_label_note(statistics.labels, words),
        languages=statistics.languages and _named(statistics, words),
        answers=_answers(statistics.answers, words),
        duplicates=duplicates,
        duplicate_facts=_duplicate_facts(duplicates, words),
        previews=previews,
    )


def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    source = resources.files(__package__).joinpath("report.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["percent"] = percent
    return environment.from_string(source)


def percent(share: float) -> str:
    """Such as 12.3 %; what is little is not called nothing."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share * 100:.1f} %" if 0 < share < 1 else f"{share * 100:.0f} %"


def _figures(statistics: Statistics, duplicates: Duplicates | None, words: dict[str, str]) -> list[Figure]:
    size, unit = _size(statistics.text_bytes)
    found = [Figure(words["rows"], f"{statistics.rows:,}"), Figure(words["text"], size, unit)]
    if statistics.characters:
        found.append(Figure(words["median_row"], f"{statistics.characters.p50:,}", words["characters"]))
    if duplicates:
        repeated, leaked = duplicates.exact + duplicates.near, duplicates.leaked_exact + duplicates.leaked_near
        found.append(Figure(words["duplicates"], percent(repeated / max(duplicates.rows, 1))))
        found.append(Figure(words["leaked"], f"{leaked:,}", bad=leaked > 0))
    return found


def _size(count: int) -> tuple[str, str]:
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.3g}" if count < 1000 * size else f"{count / size:,.0f}", unit
    return str(count), "B"


def _distributions(statistics: Statistics, words: dict[str, str]) -> list[Shape]:
    from markupsafe import Markup

    from sluice.rows.profile.plots import histogram

    lists = [
        (words["messages_a_row"] if name == "messages" else words["turns"].format(field=name), each.items, "")
        for name, each in statistics.fields.items()
        if each.items and each.items.max > 1
    ]
    images, pixels = statistics.images, [words[name] for name in _IMAGE_NUMBERS[1:]]
    sizes = [] if images is None else [(words[name], getattr(images, name), "") for name in _IMAGE_NUMBERS]
    wide = [(words["lengths"], statistics.characters, ""), (words["tokens"], statistics.tokens, words["tokens_note"])]
    found = []
    for place, (title, lengths, note) in enumerate([*wide, *lists, *sizes]):
        if lengths:
            first = place < len(wide)
            plot = Markup(histogram(lengths, f"plot{place}", wide=first))  # our own, and all text in it is digits
            counted = words["axis_images" if title in pixels else "axis_rows"]
            found.append(Shape(title, lengths, plot, counted, note, first))
    return found


def _in_order(statistics: Statistics) -> list[str]:
    known = ("train", "validation", "test")
    return [name for name in known if name in statistics.splits] + sorted(statistics.splits.keys() - {*known})


def _shares(counts: dict[str, int]) -> list[Share]:
    total = max(sum(counts.values()), 1)
    return [Share(name, count, count / total) for name, count in counts.items()]


def _labels(labels: Labels | None, words: dict[str, str]) -> list[Share]:
    if labels is None:
        return []
    shown = [Share(each.value, each.rows, each.rows / labels.total) for each in labels.top[:SHOWN_LABELS]]
    rest = labels.total - sum(each.number for each in shown)
    return [*shown, Share(words["rest"], rest, rest / labels.total)] if rest else shown


def _label_note(labels: Labels | None, words: dict[str, str]) -> str:
    if labels is None:
        return ""
    if labels.distinct is None:
        return words["labels_many"].format(error=f"{labels.error:,}")
    return words["labels_note"].format(distinct=f"{labels.distinct:,}")


def _named(statistics: Statistics, words: dict[str, str]) -> dict[str, Any]:
    found = statistics.languages
    assert found
    names = {UNDETERMINED: words["und"]}
    shares = [
        {"name": names.get(each.code, each.code), "share": each.share, "low": each.low, "high": each.high}
        for each in found.shares
    ]
    return {"sampled": found.sampled, "shares": shares}


def _answers(answers: Answers | None, words: dict[str, str]) -> list[tuple[str, str, str]]:
    if answers is None:
        return []
    distinct = words["many"] if answers.distinct is None else f"{answers.distinct:,}"
    return [
        (words["answers_count"], f"{answers.count:,}", ""),
        (words["answers_empty"], f"{answers.empty:,}", percent(answers.empty / answers.count)),
        (words["answers_top"], f"{answers.most_frequent:,}", percent(answers.most_frequent / answers.count)),
        (words["answers_distinct"], distinct, ""),
    ]


def _duplicate_facts(found: Duplicates | None, words: dict[str, str]) -> list[tuple[str, str, str]]:
    if found is None:
        return []
    rows, held_out = max(found.rows, 1), max(found.held_out, 1)
    facts = [
        (words["exact"], found.exact, rows),
        (words["near"].format(threshold=f"{found.threshold:g}"), found.near, rows),
        (words["leaked_exact"], found.leaked_exact, held_out),
        (words["leaked_near"], found.leaked_near, held_out),
        (words["conflicting"], found.conflicting_labels, rows),
    ]
    return [(name, f"{count:,}", percent(count / whole)) for name, count, whole in facts]
