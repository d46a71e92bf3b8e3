"""What a commit must know of the version before it: how many rows are new, and that all ids are; pure."""

from __future__ import annotations

from typing import NamedTuple

from kit.rpc.errors import StateConflict


class New(NamedTuple):
    """So many rows of an upload are not in that version; None where nobody can tell, as its rows are gone."""

    version: str
    rows: int | None


class UncountedError(StateConflict):
    """What is about to be committed was not compared with `version`, which is the newest by now."""

    def __init__(self, version: str) -> None:
        super().__init__(f"the rows were not compared with those of `{version}` yet; that is done first")
        self.version = version


class UncomparedError(StateConflict):
    """The ids of what is about to be committed were compared with those of `compared`, and `newest` is the newest."""

    def __init__(self, newest: str, compared: str) -> None:
        super().__init__(f"the ids were not compared with those of `{newest}` yet; that is done first")
        self.newest = newest
        self.compared = compared


def rows_new(newest: str, rows: int, counted: New | None) -> int | None:
    """How many of so many rows are new after the newest version, none being an empty name. Raises UncountedError."""
    if not newest:
        return rows
    if counted is None or counted.version != newest:
        raise UncountedError(newest)
    return counted.rows
