"""Rows that identify people: counted, masked or refused; what identifies is known by the recognizers."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from sluice.rows.deidentify import Policy, look, recognizers
from sluice.rows.demands import Demands
from sluice.rows.demands.moved_spans import moved
from sluice.rows.demands.step import Looked, Step
from sluice.rows.profile.texts import ASSETS
from sluice.rows.violations import RefusedError

#: A row is known and put into a split by these: masked, many patients would be one.
_NAMES = ("id", "group")


def identity(demands: Demands) -> Step:
    """The step of a policy. Raises Invalid for a recognizer that is not there."""
    policy, using = Policy(demands.deidentify), recognizers(demands.recognizers)

    def step(rows: pa.Table) -> Looked:
        table = pl.DataFrame(pl.from_arrow(rows))
        if policy is not Policy.MASK:
            _, found = look(table, using)
            if policy is Policy.REPORT:
                return Looked(rows, identified=found.counts)
            return Looked(rows, {place: _refused(kinds) for place, kinds in sorted(found.rows.items())})
        _, names = look(table, using, columns=_NAMES)
        contents = [name for name in rows.column_names if name not in _NAMES and name not in ASSETS]
        masked, found = look(table, using, mask=True, columns=contents)
        wrong = {place: _named(names.rows[place]) for place in sorted(names.rows)}
        written = _written(masked, rows, {path for _, path in found.counts})
        if "entities" in rows.column_names:
            written = moved(rows, written, using)
        return Looked(written, wrong, identified=found.counts)

    return step


def _written(masked: pl.DataFrame, rows: pa.Table, paths: set[str]) -> pa.Table:
    """The rows with the columns that were masked in place of those that were not."""
    for name in {path.partition("[")[0].partition(".")[0] for path in paths}:
        place = rows.schema.get_field_index(name)
        column = masked.get_column(name).to_arrow(compat_level=pl.CompatLevel.oldest())
        rows = rows.set_column(place, rows.schema.field(place), column.cast(rows.schema.field(place).type))
    return rows


def _refused(found: dict[str, set[str]]) -> RefusedError:
    return _identifies(found, "take it out, or upload with `deidentify` mask")


def _named(found: dict[str, set[str]]) -> RefusedError:
    return _identifies(found, "give a pseudonym of your own: masked, many people would be one")


def _identifies(found: dict[str, set[str]], repair: str) -> RefusedError:
    path, *_ = sorted(found)
    kinds = ", ".join(sorted(set().union(*found.values())))
    return RefusedError(path, "identifies-person", "text that identifies nobody", f"what looks like {kinds}", repair)
