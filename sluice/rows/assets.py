"""The step from names of images, videos and sounds, as rows give them, to digests of bytes that can be decoded.

Where the bytes are is the matter of a shelf: an archive, a folder, or files that were uploaded beside the rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sluice.rows.columns import ASSETS
from sluice.rows.demands.step import Looked, Step
from sluice.rows.violations import RefusedError

#: Rows of one frame that are explained: beyond, the same sentences come again.
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Trouble(Exception):
    """Why a name leads to no asset: as in a Violation, without row and field."""

    def __init__(self, kind: str, expected: str, found: str, repair: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.expected = expected
        self.found = found
        self.repair = repair

    def at(self, field: str) -> RefusedError:
        """The same of a field."""
        return RefusedError(field, self.kind, self.expected, self.found, self.repair)


class Shelf(Protocol):
    """Where assets are had by the names that rows give them. Called from several threads at a time."""

    def find(self, names: Sequence[tuple[str, str]]) -> list[str | Trouble]:
        """For each kind (`image` or `audio`) and name the digest `sha256:<hex>` of what was decoded, or the trouble."""

    def frames(self, name: str) -> list[str]:
        """The names of the images in a folder, in order; none where there is no such folder."""

    def take(self, contents: Sequence[bytes | None]) -> list[str | None]:
        """Take in bytes that stand in rows, and give names by which `find` knows them; None for none."""


def settling(shelf: Shelf) -> Step:
    """The step that puts digests in the place of names; rows with a name that leads nowhere are wrong."""

    def step(rows: pa.Table) -> Looked:
        wrong: dict[int, RefusedError] = {}
        for name in ASSETS:
            if name not in rows.column_names:
                continue
            place = rows.schema.get_field_index(name)
            column = rows.column(name).combine_chunks()
            column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            settled = _videos(column, shelf, wrong) if name == "videos" else _listed(column, name, shelf, wrong)
            rows = rows.set_column(place, rows.schema.field(place), settled)
        return Looked(rows, wrong)

    return step


def _listed(column: pa.Array, field: str, shelf: Shelf, wrong: dict[int, RefusedError]) -> pa.Array:
    flat = column.flatten()
    names = pc.unique(flat)
    found = shelf.find([(field.removesuffix("s"), name) for name in names.to_pylist()])
    digests = pa.array([each if isinstance(each, str) else None for each in found], pa.string())
    settled = digests.take(pc.index_in(flat, names))
    counts = np.asarray(pc.list_value_length(column).fill_null(0), np.int64)
    starts = np.cumsum(counts) - counts
    if settled.null_count:
        rows = np.repeat(np.arange(len(column)), counts)
        places = dict(zip(names.to_pylist(), found, strict=True))
        for place in np.flatnonzero(np.asarray(settled.is_null())):
            row = int(rows[place])
            trouble = places[flat[place].as_py()]
            if row not in wrong and isinstance(trouble, Trouble):
                wrong[row] = trouble.at(f"{field}[{int(place) - int(starts[row])}]")
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), settled, mask=column.is_null())


def _videos(column: pa.Array, shelf: Shelf, wrong: dict[int, RefusedError]) -> pa.Array:
    """Row by row: a video is many frames, and a file has few of them."""
    settled: list[Any] = []
    for row, videos in enumerate(column.to_pylist()):
        made: list[list[str]] = []
        for index, frames in enumerate(videos or []):
            field = f"videos[{index}]"
            names = (shelf.frames(frames[0]) or frames) if len(frames) == 1 else frames
            found = shelf.find([("image", name) for name in names])
            for place, each in enumerate(found):
                if isinstance(each, Trouble) and row not in wrong:
                    wrong[row] = _of_video(each, frames).at(field if len(frames) == 1 else f"{field}[{place}]")
            made.append([each for each in found if isinstance(each, str)])
        settled.append(None if videos is None else made)
    return pa.array(settled, ASSETS["videos"])


def _of_video(trouble: Trouble, frames: list[str]) -> Trouble:
    if len(frames) > 1 or trouble.kind not in ("missing-asset", "undecodable-image"):
        return trouble
    expected = "a folder with the frames of the video as images, or a list of them"
    repair = "write its frames as images into a folder (ffmpeg -i clip.mp4 -vf fps=2 clip/%05d.jpg) and name that"
    return Trouble("no-frames", expected, trouble.found, repair)


def digests_in(rows: pa.Table) -> dict[str, list[str]]:
    """What the rows of a part name, by kind of column, each once and in order."""
    found = {}
    for name in ASSETS:
        if name in rows.column_names:
            flat = rows.column(name).combine_chunks()
            while pa.types.is_list(flat.type):
                flat = pc.list_flatten(flat)
            if named := sorted(pc.unique(flat).drop_null().to_pylist()):
                found[name] = named
    return found


def without_empty(rows: pa.Table) -> pa.Table:
    """The rows without the columns for assets that name none."""
    empty = [name for name in ASSETS if name in rows.column_names and rows.column(name).null_count == len(rows)]
    return rows.drop_columns(empty) if empty else rows
