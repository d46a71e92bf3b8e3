"""What is told of a whole version, in the checking process: of each part only the columns are read that are needed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from services.dataset.checks import wire
from services.dataset.checks.child import Wire

if TYPE_CHECKING:
    import pyarrow as pa

    from sluice.rows.profile import Difference, Duplicates, Statistics
    from sluice.rows.profile.difference import Keyed, Rows

#: Rows that are looked at together.
_BATCH_ROWS = 16_384


def describe(task: wire.Describe, wires: Wire) -> Statistics:
    """Counts what the rows are like."""
    from sluice.rows.profile import StatisticsPass

    with wires.file(sum(part.size for part in task.parts), task.sizes) as sizes:
        whole = StatisticsPass(image_sizes=wire.decode(sizes.read() or b"{}", type=dict[str, tuple[int, int]]))
    for batch in _contents(wires, task.parts):
        whole.add(batch)
    return whole.result()


def repeats(task: wire.Repeats, wires: Wire) -> Duplicates:
    """Looks for rows that repeat others."""
    from sluice.rows.profile import DuplicatesPass

    whole = DuplicatesPass()
    for batch in _contents(wires, task.parts):
        whole.add(batch)
    return whole.result(wires.tick)


def compare(task: wire.Compare, wires: Wire) -> Difference:
    """Tells which rows only one version has."""
    from sluice.rows.profile import difference

    return difference(*_sides(task, wires), task.rows)


def count_new(task: wire.CountNew, wires: Wire) -> int:
    """Counts the rows whose key the version before does not have."""
    from sluice.rows.profile import count_new

    return count_new(*_sides(task, wires), task.rows)


def shared_ids(task: wire.SharedIds, wires: Wire) -> int:
    """Counts the rows that have an id of the version before."""
    import numpy as np

    from sluice.rows.ids import SeenIds, of_part

    def ids(parts: Sequence[wire.Stretch], begin: int) -> Iterator[pa.ChunkedArray]:
        return (of_part(file) for _, file in wires.parts(parts, begin))

    seen = SeenIds()
    for found in ids(task.before, 0):
        seen.add(found, np.zeros(len(found), np.int64))  # which row it was is not asked
    return sum(len(seen.find(found)) for found in ids(task.after, sum(part.size for part in task.before)))


def _contents(wires: Wire, parts: Sequence[wire.Stretch]) -> Iterator[pa.RecordBatch]:
    """What the rows of parts say, with the splits they are in."""
    from sluice.rows.parts import ABOUT, KEY

    done = 0
    for _, file in wires.parts(parts):
        for batch in _batches(file, lambda name: name not in (*ABOUT, KEY)):
            yield batch
            done += len(batch)
            wires.tick(done)


def _sides(task: wire.Compare, wires: Wire) -> tuple[Rows, Rows]:
    """The keys of both versions, as often as they are wanted; what is told is how many were read, of all in turns."""
    from sluice.rows.parts import KEY, SPLIT
    from sluice.rows.profile.difference import Keyed

    done = 0

    def keys(parts: Sequence[wire.Stretch], begin: int) -> Iterator[Keyed]:
        nonlocal done
        for part, file in wires.parts(parts, begin):
            row = part.rows_before + 1
            for batch in _batches(file, (KEY, SPLIT).__contains__):
                yield Keyed(row, batch.column(KEY), batch.column(SPLIT))
                row += len(batch)
                done += len(batch)
                wires.tick(min(done, task.rows))

    middle = sum(part.size for part in task.before)
    return lambda: keys(task.before, 0), lambda: keys(task.after, middle)


def _batches(part: io.BufferedReader, wanted: Callable[[str], bool]) -> Iterator[pa.RecordBatch]:
    """Some columns of a part; of the others not even the bytes are asked for."""
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(part)
    names = [name for name in file.schema_arrow.names if wanted(name)]
    yield from file.iter_batches(_BATCH_ROWS, columns=names)
