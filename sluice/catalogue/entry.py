"""What the catalogue says of a public dataset, as types that are checked when they are read; it touches no data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal

from msgspec import Struct, field

from sluice.catalogue import template
from sluice.catalogue.template import TemplateError

Role = Literal["system", "user", "assistant"]
Side = Literal["prompt", "completion", "chosen", "rejected"]
Modality = Literal["text", "image", "audio", "video"]
ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
#: ISO 639 codes, of which `mul` means many; the other two are for programs, and for data without any language.
LANGUAGE = re.compile(r"[a-z]{2,3}|code|none")
#: What a row of each task type must have; one of the names where a set stands.
REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    "pretrain": (("text",),),
    "sft": (("messages",),),
    "dpo": (("chosen",), ("rejected",)),
    "rm": (("chosen",), ("rejected",)),
    "kto": (("prompt",), ("completion",), ("label",)),
    "embedding": (("query",), ("positive",)),
    "reranker": (("query",), ("positive",)),
    "sequence-classification": (("text", "images", "audios"), ("label", "labels")),
    "token-classification": (("tokens",), ("tags",)),
    "image-text-classification": (("text",), ("images",), ("label", "labels")),
    "vqa": (("messages",), ("images", "audios")),
    "caption": (("messages",), ("images", "audios")),
    "ocr": (("messages",), ("images",)),
    "grounding": (("messages",), ("images",)),
    "asr": (("messages",), ("audios",)),
    "audio-qa": (("messages",), ("audios",)),
}


class Pick(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A text worked out of a row: ``of`` is filled in, then what ``cut`` matches is taken out, then ``find`` chosen.

    ``find`` keeps its one group. ``join`` stands between the items of a list. ``names`` turns what is left, an index
    from 0 or a word, into what it is called; a value it does not know makes the row incomplete. With ``by``, ``of`` has
    a template for each value of it.
    """

    of: str | dict[str, str]
    by: str = ""
    cut: str = ""
    find: str = ""
    join: str = "\n"
    names: list[str] | dict[str, str] = []


Value = str | Pick
#: The path of a column that holds a list, such as `{choices.text}`, or a template for each item.
Values = str | list[Value]


class Conversation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A column that holds a list of turns: objects, or with ``alternate`` plain texts, the user's first."""

    turns: str
    role: str = "role"
    content: str = "content"
    roles: dict[str, Role] = {}
    alternate: bool = False


class Choice(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A multiple-choice question; it becomes a user message with lettered options and the letter of the right one.

    ``kind`` says what ``answer`` is: a letter, an index from 0 or from 1, or the text of an option. With `first` the
    first option is the right one; the options are then turned round by the length of the question, so that the
    letter differs from row to row and not from run to run.
    """

    question: Value
    options: Values
    answer: Value = ""
    kind: Literal["letter", "index", "one-based", "text", "first"] = "letter"
    lead: str = ""


class Mapping(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How columns become the canonical fields of the task type; see ``REQUIRED``.

    ``choice`` fills `messages`, and ``conversations`` those fields that are lists of messages and not texts.
    """

    system: Value | None = None
    messages: list[dict[Role, Value]] | Conversation | None = None
    choice: Choice | None = None
    text: Value | None = None
    prompt: Value | None = None
    completion: Value | None = None
    chosen: Value | None = None
    rejected: Value | None = None
    conversations: dict[Side, Conversation] = {}
    query: Value | None = None
    positive: Value | None = None
    negatives: Values | None = None
    label: Value | None = None
    labels: Values | None = None
    label_names: list[str] | dict[str, str] = []
    label_separator: str = ""
    tokens: str | None = None
    tags: str | None = None
    tag_names: list[str] = []
    images: Values | None = None
    audios: Values | None = None


class Layout(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one published form of the dataset lays its files out.

    ``splits`` has glob patterns, of which the first that finds files is taken. ``columns`` are those the mapping reads,
    after ``rows`` (JSON: the key at the top under which the list of rows is) and ``explode`` (list columns of objects,
    one after the other: each item becomes a row); in delimited files without ``header`` all of them in their order.
    ``where`` keeps rows whose column has one of the values, ``at_least`` those whose number is not smaller.
    ``media`` says where images and sounds are: in the files with the rows, beside them, or behind URLs.
    """

    format: Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "txt", "documents", "images", "webdataset"]
    splits: dict[str, str | list[str]]
    columns: list[str]
    mapping: Mapping
    rows: str = ""
    explode: list[str] = []
    where: dict[str, list[str]] = {}
    at_least: dict[str, float] = {}
    header: bool = True
    quotes: bool = True
    skip_lines: int = 0
    media: Literal["", "embedded", "files", "urls"] = ""

    def patterns(self, split: str) -> list[str]:
        """The patterns of a split, in the order in which they are tried."""
        found = self.splits[split]
        return [found] if isinstance(found, str) else found


class Entry(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One public dataset.

    ``verified`` is how far the entry was checked, always without the original's data: `none`, written from general
    knowledge; `layout`, columns or files compared with a published card, listing or loader, which ``seen`` names;
    `sample`, besides, a test maps invented rows that are laid out so and compares what comes out.
    """

    id: str
    name: str
    description: str
    source: str
    licence: str
    commercial_use: Literal["yes", "no", "unclear"]
    languages: list[str]
    task_type: str
    layouts: list[Layout]
    modalities: list[Modality] = field(default_factory=lambda: ["text"])
    access: Literal["open", "registration", "credentialed"] = "open"
    verified: Literal["none", "layout", "sample"] = "none"
    seen: list[str] = []
    domain: str = ""

    @property
    def splits(self) -> list[str]:
        """Every split of any layout; the first is what `register` takes when none is asked for."""
        return list(dict.fromkeys(split for layout in self.layouts for split in layout.splits))


def faults(entry: Entry) -> Iterator[str]:
    """Yields a sentence, beginning with the field, for each thing that is wrong with an entry."""
    if not ID.fullmatch(entry.id):
        yield "`id` is not of lower-case words with hyphens"
    for name in ("name", "description", "source", "licence"):
        if not getattr(entry, name).strip():
            yield f"`{name}` is empty"
    if entry.task_type not in REQUIRED:
        yield f"`task_type` `{entry.task_type}` is none of {', '.join(REQUIRED)}"
    if not entry.languages or any(not LANGUAGE.fullmatch(language) for language in entry.languages):
        yield "`languages` wants codes such as `en`"
    if (entry.verified == "none") == bool(entry.seen):
        yield "`seen` names what the entry was compared with, just when `verified` is not `none`"
    if not entry.layouts:
        yield "`layouts` is empty"
    for layout in entry.layouts:
        yield from _layout_faults(layout, entry.task_type)


def _layout_faults(layout: Layout, task_type: str) -> Iterator[str]:
    if not layout.splits:
        yield "`splits` is empty"
    for split in layout.splits:
        for pattern in layout.patterns(split):
            if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts or not pattern:
                yield f"`splits`: `{pattern}` leads out of the mirror"
    mapping = layout.mapping
    given = {name for name in mapping.__struct_fields__ if getattr(mapping, name)} | set(mapping.conversations)
    given |= {"messages"} if mapping.choice else set()
    for names in REQUIRED.get(task_type, ()):
        if not given.intersection(names):
            yield f"`mapping` fills no `{'` or `'.join(names)}`, which `{task_type}` needs"
    try:
        used = set(roots(mapping)) | set(layout.where) | set(layout.at_least)
    except TemplateError as error:
        yield f"`mapping`: {error}"
        return
    for column in sorted(used - set(layout.columns)):
        yield f"`mapping` reads `{column}`, which is not in `columns`"


def roots(part: object) -> Iterator[str]:
    """Yields the columns that a mapping, or a part of one, reads. Raises TemplateError for a malformed template."""
    if isinstance(part, str):
        yield from template.columns_of(part)
    elif isinstance(part, Pick):
        if part.find and re.compile(part.find).groups != 1:
            raise TemplateError(f"`find` of `{part.of}` wants one group: what is kept")
        if isinstance(part.of, dict) != bool(part.by):
            raise TemplateError("`by` goes with an `of` that has a template for each value, and only with that")
        yield from roots([part.of, part.by])
    elif isinstance(part, Conversation):
        yield from template.columns_of(part.turns)
    elif isinstance(part, list):
        for item in part:
            yield from roots(item)
    elif isinstance(part, dict):
        yield from roots(list(part.values()))
    elif isinstance(part, Choice):
        yield from roots([part.question, part.options, part.answer])
    elif isinstance(part, Mapping):
        named = ("label_names", "label_separator", "tag_names")
        yield from roots([getattr(part, name) for name in part.__struct_fields__ if name not in named])
