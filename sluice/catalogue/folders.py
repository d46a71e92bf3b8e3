"""Folders of texts and images, and archives of WebDataset, as frames; images are named and never opened."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from kit.rpc.errors import Invalid
from sluice.catalogue.lines import CHUNK_BYTES, opened
from sluice.catalogue.mirror import Found
from sluice.catalogue.tables import BATCH_ROWS

#: A text that stands beside an image in an archive.
MAX_PART_BYTES = 1 << 20
TEXT_PARTS = ("txt", "json", "cls", "caption")
MEDIA = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".wav", ".flac", ".mp3", ".ogg")


def texts_of(found: Found) -> Iterator[pl.DataFrame]:
    """Whole files as `text`; as many in a frame as fit into some MiB."""
    paths: list[Path] = []
    texts: list[str] = []
    size = 0
    for path in found.files:
        texts.append(_text_of(path, found))
        paths.append(path)
        size += len(texts[-1])
        if len(paths) == BATCH_ROWS or size > CHUNK_BYTES:
            yield pl.DataFrame({"text": texts, **_places(paths, found)})
            paths, texts, size = [], [], 0
    if paths:
        yield pl.DataFrame({"text": texts, **_places(paths, found)})


def _text_of(path: Path, found: Found) -> str:
    try:
        with opened(path) as file:
            return file.read().decode()
    except (UnicodeDecodeError, gzip.BadGzipFile):
        raise Invalid(f"`{path.relative_to(found.root)}` is damaged or no UTF-8 text; sync it again") from None


def images(found: Found) -> Iterator[pl.DataFrame]:
    """Paths of images, and the folders they lie in; they are not opened."""
    paths = [path for path in found.files if path.suffix.lower() in MEDIA]
    for start in range(0, len(paths), BATCH_ROWS):
        yield pl.DataFrame(_places(paths[start : start + BATCH_ROWS], found))


def _places(paths: Sequence[Path], found: Found) -> dict[str, list[str]]:
    return {
        "path": [str(path.relative_to(found.root)) for path in paths],
        "folder": [path.parent.name for path in paths],
        "stem": [path.stem for path in paths],
    }


def webdataset(path: Path, found: Found) -> Iterator[pl.DataFrame]:
    """Members of one name as a row, a column for each ending: the text of small texts, the path of anything else."""
    rows: list[dict[str, str]] = []
    shard = str(path.relative_to(found.root))
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if not member.isfile():
                continue
            folder, _, file = member.name.rpartition("/")
            stem, _, part = file.partition(".")
            key = f"{folder}/{stem}"
            if not rows or rows[-1]["key"] != key:
                if len(rows) >= BATCH_ROWS:
                    yield _of_parts(rows, found)
                    rows = []
                rows.append({"key": key, "shard": shard})
            rows[-1][part] = _part(archive, member) if part in TEXT_PARTS else f"{shard}/{member.name}"
    yield _of_parts(rows, found)


def _part(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    return file.read(MAX_PART_BYTES).decode() if file else ""


def _of_parts(rows: list[dict[str, str]], found: Found) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict.fromkeys(found.layout.columns, pl.String))
