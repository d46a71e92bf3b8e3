"""What is wrong with rows, as people read it: in English, or in the language that they have set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sluice.cli import screen

if TYPE_CHECKING:
    from sluice.cli.options import Session

MAX_SHOWN = 20


def spoken() -> str:
    """The language of people; empty for English."""
    from sluice.rows.translations import language

    return language()


def show(
    session: Session, violations: Sequence[Any], counts: Mapping[str, int], *, fixed: bool, aside: int = 0
) -> None:
    """The first of them as a table, and below it how many there are of each kind and what may be done at once.

    `fixed` says that what can be repaired was, `aside` how many rows an upload would put aside.
    """
    from sluice.rows.translations import said

    to = spoken()
    shown = list(violations)[:MAX_SHOWN]
    screen.put(screen.table(shown, _columns(to, archived=any(each.file for each in shown))))
    if len(violations) > len(shown):
        screen.hint(session, said("… and {} more", len(violations) - len(shown), to=to))
    screen.hint(session, ", ".join(f"{count} × {said(kind, to=to)}" for kind, count in _most_first(counts)))
    if aside:
        screen.hint(session, said("an upload would put aside: {}", aside, to=to))
    elif all(each.row for each in shown):
        way = "--on-error=quarantine puts the wrong rows aside at upload"
        if not fixed and any(map(_fixable, violations)):
            way = "--fix makes what repairs it can; --on-error=quarantine puts the other rows aside at upload"
        screen.hint(session, said(way, to=to))


def show_right(session: Session, rows: int, task_type: str, split_rows: Mapping[str, int]) -> None:
    """That a file follows the rules."""
    from sluice.rows.translations import said

    splits = ", ".join(f"{count} {split}" for split, count in split_rows.items())
    screen.hint(session, said("{} rows are right for {} ({})", rows, task_type, splits, to=spoken()))


def show_done(
    session: Session,
    fixed: Mapping[str, int],
    filtered: int,
    identified: Iterable[tuple[str, str, int]],
    *,
    masked: bool,
) -> None:
    """What was repaired, what was left out, and what identifies people, as kind, field and count.

    It is ``masked`` in the rows, or still in them.
    """
    from sluice.rows.translations import said

    to = spoken()
    if fixed:
        kinds = ", ".join(f"{count} × {said(kind, to=to)}" for kind, count in _most_first(fixed))
        screen.hint(session, said("repaired: {}", kinds, to=to))
    if filtered:
        screen.hint(session, said("left out by --keep: {}", filtered, to=to))
    found = sorted(identified, key=lambda each: (-each[2], each))
    if found:
        places = ", ".join(
            said("{} × {} in {}", count, said(kind, to=to), field, to=to) for kind, field, count in found
        )
        screen.hint(session, said("masked: {}" if masked else "still in the rows: {}", places, to=to))


def summary(file_name: str, task_type: str, count: int) -> str:
    """That a file breaks the rules."""
    from sluice.rows.translations import said

    one = "`{}` breaks the rules of `{}` in {} place; repair it as shown"
    several = "`{}` breaks the rules of `{}` in {} places; repair them as shown"
    return said(one if count == 1 else several, file_name, task_type, count, to=spoken())


def refusal(file_name: str, count: int) -> str:
    """That the suite has refused a file."""
    from sluice.rows.translations import said

    return said("`{}` was refused: {} rows are wrong", file_name, count, to=spoken())


def _fixable(violation: Any) -> bool:
    """Whether --fix may do what the repair proposes: another name or word, a plain value, another encoding."""
    kind, repair = str(violation.kind), str(violation.repair)
    if kind == "wrong-type":
        return (violation.expected, violation.found) in (("text", "a number"), ("true or false", "text"))
    return kind == "wrong-encoding" or (repair.endswith("?") and kind != "missing-asset")


def _columns(to: str, *, archived: bool) -> screen.Columns:
    from sluice.rows.translations import said, translated

    columns: dict[str, Any] = {"FILE": lambda each: each.file} if archived else {}
    columns |= {
        "ROW": lambda each: each.row or said("file", to=to),
        "FIELD": lambda each: each.field or said("(row)", to=to),
        "EXPECTED": lambda each: translated(each.expected, to),
        "FOUND": lambda each: translated(each.found, to),
        "REPAIR": lambda each: translated(each.repair, to),
    }
    return {said(title, to=to): show for title, show in columns.items()}


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))
