"""A folder with a copy of a dataset as it was published: which of its files are meant; it reads none of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kit.rpc.errors import Invalid, NotFound
from sluice.catalogue.entry import Entry, Layout

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")


class Found(NamedTuple):
    """The files of one split in a mirror, sorted by name; ``root`` is what the paths of images begin at."""

    layout: Layout
    split: str
    root: Path
    files: list[Path]


def find(entry: Entry, mirror: Path, split: str = "") -> Found:
    """The files of a split, or of the first split that is there.

    Takes a folder as published, or one of a Hugging Face cache, `datasets--owner--name`. Raises Invalid for a folder
    that lacks them, naming what was looked for, and for a link that leads out of it; NotFound for an unknown split.
    """
    if not mirror.is_dir():
        raise Invalid(f"there is no folder `{mirror}`; give the folder that holds the copy of `{entry.id}`")
    if split and split not in entry.splits:
        raise NotFound(f"`{entry.id}` has no split `{split}`; it has {', '.join(entry.splits)}")
    root = _snapshot(mirror)
    for wanted in [split] if split else entry.splits:
        for layout in entry.layouts:
            if wanted in layout.splits and (files := _files(layout, wanted, root, mirror)):
                return Found(layout, wanted, root, files)
    raise Invalid(_missing(entry, split, root))


def _files(layout: Layout, split: str, root: Path, mirror: Path) -> list[Path]:
    inside = mirror.resolve()
    for pattern in layout.patterns(split):
        found = sorted(path for path in root.glob(pattern) if path.is_file())
        for path in found:
            if not path.resolve().is_relative_to(inside):
                raise Invalid(
                    f"`{path.relative_to(root)}` is a link that leads out of `{mirror}`; put the file itself there,"
                    " or give the folder that holds both"
                )
        if found:
            return found
    return []


def _snapshot(mirror: Path) -> Path:
    """The snapshot that `main` means in a folder of a Hugging Face cache, else the folder itself."""
    snapshots, main = mirror / "snapshots", mirror / "refs" / "main"
    if not snapshots.is_dir():
        return mirror
    if main.is_file():
        revision = main.read_text("utf-8").strip()
        if revision.isalnum() and (snapshots / revision).is_dir():
            return snapshots / revision
    there = sorted(path for path in snapshots.iterdir() if path.is_dir())
    if len(there) != 1:
        raise Invalid(f"`{mirror}` holds {len(there)} snapshots and none is `main`; give the folder of one, with files")
    return there[0]


def _missing(entry: Entry, split: str, root: Path) -> str:
    wanted = split or entry.splits[0]
    patterns = [f"`{layout.patterns(wanted)[0]}`" for layout in entry.layouts if wanted in layout.splits]
    said = f"the split `{wanted}` of `{entry.id}` wants {' or '.join(patterns)}, and `{root}` has no such file"
    packed = sorted(path.name for path in root.iterdir() if path.name.lower().endswith(ARCHIVES))
    if packed:
        return f"{said}; unpack `{packed[0]}` there first"
    return f"{said}; give the top folder of a copy of {entry.source}"
