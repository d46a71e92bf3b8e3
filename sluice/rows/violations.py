"""One thing wrong with one row, told by names, types and shapes; the content of the row never enters it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

#: A row travels in one message, and a message holds 4 MiB.
MAX_ROW_BYTES = 3 << 20
#: Arrow 26 dies of 20 000 lists in one another, and Python's own parsers give up at about 1000.
MAX_DEPTH = 200
#: What to do about bytes of which nobody knows what they say.
SAVE_AS_UTF_8 = "save the file as UTF-8 with the program that wrote it; of others only GB18030 and UTF-16 are known"


@dataclass(frozen=True)
class Violation:
    """`row` counts from 1 (in JSONL the line), 0 for the file; `field` is empty for the row as a whole.

    `file` is that of the archive which the row is in, and empty where there is no archive.
    """

    row: int
    field: str
    kind: str
    expected: str
    found: str
    repair: str
    file: str = ""


@dataclass(frozen=True)
class Rename:
    """A repair: in the object that the field is of, what is called `old` was meant to be `new`."""

    old: str
    new: str


@dataclass(frozen=True)
class Replace:
    """A repair: the field was meant to hold this."""

    value: object


class RefusedError(ValueError):
    """A row that does not follow its schema; a Violation without the row's number, and the repair as data if any."""

    def __init__(
        self, field: str, kind: str, expected: str, found: str, repair: str, fix: Rename | Replace | None = None
    ) -> None:
        super().__init__(kind)
        self.fix = fix
        self.field = field
        self.kind = kind
        self.expected = expected
        self.found = found
        self.repair = repair

    def at(self, row: int) -> Violation:
        """Return the violation of the row with this number."""
        return Violation(row, self.field, self.kind, self.expected, self.found, self.repair)


def too_large() -> RefusedError:
    """A row that does not fit into a message."""
    limit = f"at most {MAX_ROW_BYTES >> 20} MiB of JSON a row"
    return RefusedError("", "row-too-large", limit, "more", "split the row")


def too_deep() -> RefusedError:
    """A row whose lists and objects stand too deep in one another for parsers."""
    limit = f"at most {MAX_DEPTH} lists and objects in one another"
    return RefusedError("", "nested-too-deep", limit, "more", "drop the field, or write it as text")


def shape(value: object) -> str:
    """Describe a JSON value by its type and size."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "empty text" if not value.strip() else "text"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case dict():
            if len(value) == 1:
                return "an object with 1 field"
            return f"an object with {len(value)} fields" if value else "an empty object"
        case _:
            return "something else"


def near(names: Iterable[str], wanted: Collection[str]) -> Rename | None:
    """Propose a renaming such as `anwser` to `answer`; None when no name is close to a wanted one."""
    for name in names:
        if len(name) <= 40 and (close := get_close_matches(name.lower(), wanted, 1, 0.75)):
            return Rename(name, close[0])
    return None


def proposal(rename: Rename | None, otherwise: str) -> str:
    """The renaming in words, such as "`anwser` → `answer`?"; something else where there is none."""
    return f"`{rename.old}` → `{rename.new}`?" if rename else otherwise


def missing(field: str, row: dict[str, object], repair: str, known: Collection[str] = ()) -> RefusedError:
    """Say that a field is absent, proposing the unknown name in the row that comes near it."""
    others = [name for name in row if name not in known and name != field]
    rename = near(others, [field])
    what = f"a field `{field}`"
    return RefusedError(field, "missing-field", what, shape(row), proposal(rename, repair), rename)


def text(value: object, field: str) -> str:
    """Return the value when it is text with something in it; RefusedError otherwise."""
    if not isinstance(value, str):
        fix = Replace(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None
        raise RefusedError(field, "wrong-type", "text", shape(value), f"give `{field}` as text in quotes", fix)
    if not value.strip():
        raise RefusedError(field, "empty-text", "text that is not empty", shape(value), "fill it in or drop the row")
    return value
