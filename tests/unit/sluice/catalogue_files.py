"""Writes made-up rows as the publishers of datasets lay them out; knows no entry of the catalogue."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import zstandard

Row = Mapping[str, Any]


def write_files(root: Path, files: Mapping[str, Any]) -> None:
    """Writes each file; its content is rows, text, bytes, or any JSON document for `.json`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(name, content))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a zstd-compressed file."""
    with path.open("rb") as file:
        return [json.loads(line) for line in zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()]


def encoded(name: str, content: Any) -> bytes:
    if isinstance(content, bytes):
        return content
    if name.endswith(".gz"):
        return gzip.compress(encoded(name.removesuffix(".gz"), content))
    if name.endswith(".zst"):
        return zstandard.compress(encoded(name.removesuffix(".zst"), content))
    if isinstance(content, str):
        return content.encode()
    return FORMS[name.rpartition(".")[2]](content)


def parquet(rows: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(list(rows), infer_schema_length=None).write_parquet(buffer)
    return buffer.getvalue()


def arrow(rows: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(list(rows), infer_schema_length=None).write_ipc_stream(buffer)
    return buffer.getvalue()


def lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def document(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, indent=2).encode()


def delimited(rows: Sequence[Row], separator: str = ",", header: bool = True) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerows([list(rows[0])] if header else [])
    writer.writerows([list(row.values()) for row in rows])
    return text.getvalue().encode()


def archive(members: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


FORMS: dict[str, Any] = {
    "parquet": parquet,
    "arrow": arrow,
    "jsonl": lines,
    "json": document,
    "csv": delimited,
    "tsv": lambda rows: delimited(rows, "\t"),
    "tar": archive,
}
