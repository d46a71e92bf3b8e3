"""Archives and images for tests, made by the tools that people make them with."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import zstandard
from PIL import Image

from sluice.rows.checking import Rules
from sluice.rows.convert import Outcome, convert
from sluice.rows.media import Media
from sluice.rows.parts import Part
from sluice.rows.stacks import Beside


def png(shade: int = 0, size: tuple[int, int] = (6, 4)) -> bytes:
    sink = io.BytesIO()
    Image.new("L", size, shade).save(sink, "PNG")
    return sink.getvalue()


def jsonl(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


def tarred(files: Mapping[str, bytes], mode: str = "w", **kinds: bytes) -> bytes:
    """`kinds` are further members that are no files: a name and a type of `tarfile`."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, kind in kinds.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return sink.getvalue()


#: Each way to pack files, by the ending of the archive.
PACKS = {
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda files: tarred(files, "w:gz"),
    "tgz": lambda files: tarred(files, "w:gz"),
    "tar.zst": lambda files: zstandard.compress(tarred(files)),
}


class Kept:
    """What became of a file, its rows, and the assets that were kept, by digest."""

    def __init__(self, content: bytes, name: str, row_schema: str, beside: Mapping[str, bytes], **rules: Any) -> None:
        from sluice.rows.shelf import settled

        self.assets: dict[str, tuple[Media, bytes]] = {}
        self.parts: list[Part] = []
        shelf = Beside(beside, lambda path: settled(beside[path], self._keep), self._keep)
        given = Rules(row_schema, **rules)
        self.outcome: Outcome = convert(io.BytesIO(content), name, given, self.parts.append, beside=shelf)

    def _keep(self, digest: str, media: Media, content: bytes) -> None:
        self.assets[digest] = media, content

    @property
    def violations(self) -> list[tuple[str, int, str, str]]:
        return [(each.file, each.row, each.field, each.kind) for each in self.outcome.violations]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows with the bytes of images in place of their digests."""
        from tests.unit.rows.stored import contents

        def seen(value: Any) -> Any:
            return [seen(each) for each in value] if isinstance(value, list) else self.assets[value][1]

        found = contents(self.parts)
        return [
            {name: seen(value) if name in ("images", "videos", "audios") else value for name, value in row.items()}
            for row in found
        ]


def taken(
    content: bytes, name: str, row_schema: str = "vqa", beside: Mapping[str, bytes] | None = None, **rules: Any
) -> Kept:
    return Kept(content, name, row_schema, beside or {}, **rules)
