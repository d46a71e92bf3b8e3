"""What rows were read from, in the language people have set: columns, names that were not used, splits without rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sluice.cli import screen, violations

if TYPE_CHECKING:
    from sluice.cli.options import Session
    from sluice.dataset import v1 as dataset
    from sluice.rows.sources import Sources

#: Sentences of the catalog of translations.
SHEETS = "sheets not read: {}; only the first is, so read each other with --sheet NAME, and --append it"
EMPTY = "mind: no row is in {}; rows, or their groups, are split 80/10/10 by hash, and a few may all miss one"


def version_of(task_type: str, sources: Sources, split_rows: Mapping[str, int]) -> dataset.DatasetVersion:
    """What a version made of rows that were only checked would say of them."""
    from sluice.dataset import v1 as dataset

    unused, more = sources.unused()
    read = [dataset.ColumnRead(column=column, names=names) for column, names in sources.columns().items()]
    return dataset.DatasetVersion(
        task_type=task_type,
        split_rows=split_rows,
        columns_read=read,
        names_unused=unused,
        names_unused_more=more,
        sheets_unread=sources.sheets_unread,
    )


def of_refused(upload: dataset.Upload, task_type: str) -> dataset.DatasetVersion:
    """The same of an upload whose rows were refused."""
    from sluice.dataset import v1 as dataset

    return dataset.DatasetVersion(
        task_type=task_type,
        columns_read=upload.columns_read,
        names_unused=upload.names_unused,
        names_unused_more=upload.names_unused_more,
        sheets_unread=upload.sheets_unread,
    )


def show(session: Session, version: dataset.DatasetVersion) -> None:
    """As what the names of a file were read, which of it was not, and what few rows lead to."""
    from sluice.rows.translations import said

    to = violations.spoken()
    if version.columns_read:
        told = said("Read as {}: {}.", version.task_type, read(version), to=to)
        more = said("Not used: {}.", unused(version), to=to) if unused(version) else ""
        screen.hint(session, f"{told}{more}" if told.endswith("。") else f"{told} {more}".strip())
    if version.sheets_unread:
        screen.hint(session, said(SHEETS, version.sheets_unread, to=to))
    empty = [split for split in ("train", "validation", "test") if not version.split_rows.get(split, 0)]
    if empty and any(version.split_rows.values()):
        places = ", ".join(f"`{split}`" for split in empty)
        screen.hint(session, said(EMPTY, places, to=to))


def read(version: dataset.DatasetVersion) -> str:
    """`messages ← instruction, input, output; id`: each column with the names that it was read from."""
    return "; ".join(_column(each.column, each.names) for each in version.columns_read)


def unused(version: dataset.DatasetVersion) -> str:
    """`source, url`; where there are more than can be shown, their number."""
    from sluice.rows.translations import said

    to, more = violations.spoken(), version.names_unused_more
    counted = [said("{} more" if version.names_unused else "{} names", more, to=to)] if more else []
    return ", ".join([*version.names_unused, *counted])


def _column(column: str, names: Sequence[str]) -> str:
    return column if list(names) == [column] else f"{column} ← {', '.join(names)}"
