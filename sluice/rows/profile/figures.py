"""What is told of a dataset: plain numbers, to be written as JSON; how they are counted is not known here."""

from msgspec import Struct

from sluice.rows.profile.languages import Languages
from sluice.rows.profile.sketches import Lengths


class Part(Struct):
    """Rows of a split, and the bytes of their texts in UTF-8."""

    rows: int = 0
    text_bytes: int = 0


class Field(Struct, frozen=True):
    """The texts under one field: their characters (Unicode code points), and how many are empty or white space.

    `items`: of a field with lists, how many texts a row has there; for messages these are the turns.
    """

    characters: Lengths | None = None
    empty: int = 0
    items: Lengths | None = None


class Count(Struct, frozen=True):
    """A value, and the rows that have it."""

    value: str
    rows: int


class Labels(Struct, frozen=True):
    """Label balance: the 100 most frequent, and the rest; a row of several labels counts for each.

    `distinct` is None beyond 10 000 different labels; each count may then be low by up to `error`.
    """

    total: int
    distinct: int | None = None
    top: list[Count] = []
    rest: int = 0
    error: int = 0


class Answers(Struct, frozen=True):
    """The last answer of each row: how many there are, how many are empty, and how often the most frequent occurs.

    `distinct` is None beyond 10 000 different answers; `most_frequent` may then be low by up to `error`.
    """

    count: int
    empty: int
    most_frequent: int
    distinct: int | None = None
    error: int = 0


class Images(Struct, frozen=True):
    """Assets a row; pixels across, down and in all where the rows tell sizes."""

    assets: Lengths | None = None
    width: Lengths | None = None
    height: Lengths | None = None
    pixels: Lengths | None = None


class Statistics(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What rows are like. Parts that the rows have no column for are None or empty.

    `characters` and `tokens` are those of all texts of a row; tokens without special ones and without a chat template.
    `roles` counts the messages of the 100 most frequent roles.
    """

    rows: int
    text_bytes: int
    splits: dict[str, Part]
    characters: Lengths | None = None
    tokens: Lengths | None = None
    fields: dict[str, Field] = {}
    roles: dict[str, int] = {}
    labels: Labels | None = None
    answers: Answers | None = None
    languages: Languages | None = None
    images: Images | None = None
