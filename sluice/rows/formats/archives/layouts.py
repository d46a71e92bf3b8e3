"""Where the rows of an archive are: in files of rows, in samples of WebDataset, or in the images themselves.

Source: the WebDataset format (github.com/webdataset/webdataset), and ImageFolder of Hugging Face datasets.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from sluice.rows.formats.archives.contract import Archive, RefusedArchiveError
from sluice.rows.identities import Whose
from sluice.rows.names import UnknownFormatError, check_file_name
from sluice.rows.paths import IMAGES, SOUNDS, is_litter, may_be_asset, suffix_of
from sluice.rows.violations import MAX_ROW_BYTES

#: What may stand beside an image of the same name.
_LABELS, _TEXTS = ("cls", "label"), ("txt", "text", "caption")
_SIDECARS = ("json", *_LABELS, *_TEXTS)
_CHUNK_BYTES = 4 << 20
MAX_ROWS_FILES = 1000


@dataclass(frozen=True)
class Source:
    """Rows in an archive: the name of their file, the folder that its paths start in, and names that it gives things.

    `file` is empty where rows were made up from members, one JSON line each.
    """

    name: str
    base: str
    file: BinaryIO
    size: int
    columns: dict[str, str]


def sources(archive: Archive, row_schema: str, whose: Whose) -> Iterator[Source]:
    """The rows of an archive, file by file, each read before the next is asked for. Raises RefusedArchiveError.

    Rows that are made up of DICOM files are grouped by patient, as `whose` calls them.
    """
    names = [member.name for member in archive.members if not is_litter(member.name)]
    assets = [name for name in names if may_be_asset(name) and not _has_rows(name)]
    keys = {_key(name)[0] for name in assets if suffix_of(name)}
    beside = [name for name in names if _key(name)[1] in _SIDECARS and _key(name)[0] in keys]
    shown = [name for name in assets if suffix_of(name)] or assets
    rows = sorted(name for name in names if _has_rows(name) and name not in set(beside))
    if rows:
        yield from _files(archive, rows)
    elif beside:
        yield _made("", lambda: _samples(archive, assets, beside, whose))
    elif row_schema == "classification" and shown and all("/" in name for name in shown):
        yield _made("", lambda: _labeled(archive, shown, whose))
    elif any(_is_dicom(name) for name in assets):
        yield _made("", lambda: _described(archive, [name for name in assets if _is_dicom(name)], whose))
    else:
        found = f"{len(assets)} images or sounds, and no rows" if assets else "none"
        expected = "a file with rows in the archive, such as rows.jsonl or metadata.csv"
        repair = 'add one that names each image, such as {"image_path": "images/1.png", …}'
        raise RefusedArchiveError("no-rows-file", expected, found, repair)


def _files(archive: Archive, rows: Sequence[str]) -> Iterator[Source]:
    kinds = {check_file_name(posixpath.basename(name))[0] for name in rows}
    if len(kinds) > 1 or len(rows) > MAX_ROWS_FILES:
        expected = "one file with rows, or several of one format"
        some = ", ".join(f"`.{kind}`" for kind in sorted(kinds))
        raise RefusedArchiveError("several-rows-files", expected, f"{len(rows)}: {some}", "leave one of them in it")
    sounds = not any(suffix_of(member.name) in IMAGES for member in archive.members)
    for name, file, size in archive.each(rows):
        base, stem = posixpath.dirname(name), posixpath.basename(name).partition(".")[0]
        named = {"file_name": "audio" if sounds else "image"} if stem == "metadata" else {}
        yield Source(name, base, file, size, named)


def _samples(archive: Archive, assets: Sequence[str], beside: Sequence[str], whose: Whose) -> Iterator[dict[str, Any]]:
    """A row for each sample: members whose names are equal up to the first dot."""
    groups = {_key(name)[0]: group for name, group in _groups(archive, assets, whose).items()}
    named: dict[str, list[str]] = {}
    for name in assets:
        named.setdefault(_key(name)[0], []).append(name)
    row: dict[str, Any] = {}
    before = ""
    for name, file, size in archive.each(beside):
        key, part = _key(name)
        if key != before and row:
            yield row
            row = {}
        if not row:
            row = {"id": key, **groups.get(key, {}), **_media(sorted(named.pop(key, [])))}
        before = key
        if size > MAX_ROW_BYTES:
            raise RefusedArchiveError("row-too-large", "at most 3 MiB of text a sample", "more", "split the sample")
        row.update(_sidecar(part, file.read(size + 1)))
    if row:
        yield row
    for key, left in named.items():  # images without anything beside them: their rows lack what the task asks for
        yield {"id": key, **groups.get(key, {}), **_media(sorted(left))}


def _sidecar(part: str, content: bytes) -> dict[str, Any]:
    text = content.decode("utf-8", "replace").strip()
    if part in _LABELS:
        return {"label": text}
    if part in _TEXTS:
        return {"text": text}
    try:
        said = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"malformed_json": True}
    return said if isinstance(said, dict) else {"json": said}


def _media(names: Sequence[str]) -> dict[str, list[str]]:
    sounds = [name for name in names if suffix_of(name) in SOUNDS]
    images = [name for name in names if name not in sounds]
    return {kind: found for kind, found in (("images", images), ("audios", sounds)) if found}


def _labeled(archive: Archive, names: Sequence[str], whose: Whose) -> Iterator[dict[str, Any]]:
    """Images in folders that are called as what is on them."""
    groups = _groups(archive, names, whose)
    for name in names:
        yield {**groups.get(name, {}), **_media([name]), "label": posixpath.basename(posixpath.dirname(name))}


def _groups(archive: Archive, names: Sequence[str], whose: Whose) -> dict[str, dict[str, str]]:
    """By name of each DICOM file that tells of its patient, the group of its row."""
    found = [name for name in names if _is_dicom(name)]
    headers = ((name, _header(file, size, whose)[0]) for name, file, size in archive.each(found)) if found else ()
    return {name: {"group": patient} for name, patient in headers if patient}


def _described(archive: Archive, names: Sequence[str], whose: Whose) -> Iterator[dict[str, Any]]:
    """DICOM files as rows: what their headers say that identifies nobody.

    Their group is the patient, who may have many studies, and where the file tells of none the folder.
    """
    for name, file, size in archive.each(names):
        patient, said = _header(file, size, whose)
        row: dict[str, Any] = {"image": name}
        if group := patient or posixpath.dirname(name):
            row["group"] = group
        words = [f"{key.replace('_', ' ')} {value}" for key, value in said.items()]
        yield {**row, "text": ", ".join(words) or "DICOM", "tags": [f"{key}={value}" for key, value in said.items()]}


def _header(file: BinaryIO, size: int, whose: Whose) -> tuple[str, dict[str, str | int]]:
    """Whose a DICOM file is, and what it says beside; nothing where it cannot be read: its image tells why."""
    from sluice.rows.media import dicom

    patient = ""
    try:
        dataset = dicom.parse(file.read(min(size, dicom.MAX_FILE_BYTES) + 1))
        with dicom.translated("read"):
            patient = whose(dataset)
        return patient, dicom.describe(dataset)
    except dicom.UnreadableDicom:
        return patient, {}


def _made(name: str, rows: Callable[[], Iterator[dict[str, Any]]]) -> Source:
    from sluice.rows.streams import Stream

    stream = io.BufferedReader(Stream(_lines(rows())), _CHUNK_BYTES)
    return Source(name, "", stream, 0, {})


def _lines(rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    held, size = [], 0
    for row in rows:
        line = msgspec.json.encode(row) + b"\n"
        held.append(line)
        size += len(line)
        if size >= _CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _has_rows(name: str) -> bool:
    try:
        check_file_name(posixpath.basename(name))
    except UnknownFormatError:
        return False
    return True


def _is_dicom(name: str) -> bool:
    suffix = suffix_of(name)
    return suffix not in (*IMAGES, *SOUNDS)


def _key(name: str) -> tuple[str, str]:
    """What members of a sample share, and what each is of it: `a/0001` and `cls` of `a/0001.cls`."""
    folder, _, file = name.rpartition("/")
    stem, _, part = file.partition(".")
    return (f"{folder}/{stem}" if folder else stem), part.lower()
