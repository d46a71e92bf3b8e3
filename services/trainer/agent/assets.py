"""Brings the images and sounds that rows name beside them, `in/assets/<hex>`, each once; what is in one is not known
here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from sluice.dataset import v1 as dataset
from sluice.rows.sights import digests

READ_AT_ONCE = 64
DICOM = "application/dicom"
#: Of a row no more is decoded than what it names.
_Named = msgspec.defstruct(
    "_Named", [("images", list[str], []), ("videos", list[list[str]], []), ("audios", list[str], [])]
)
_decode = msgspec.json.Decoder(_Named).decode


async def fetch(stub: dataset.AssetServiceAsyncStub, version: str, folder: Path, splits: Iterable[str]) -> None:
    """Fills ``folder/assets`` with what the rows of ``folder/<split>.jsonl`` name; what is there whole stays.

    An image of DICOM comes as the PNG that a viewer would show. Raises as ReadAssets, and OSError.
    """
    target = folder / "assets"
    target.mkdir(mode=0o700, exist_ok=True)
    files = [file for split in splits if (file := folder / f"{split}.jsonl").is_file()]
    named = await asyncio.to_thread(_named, files)
    for stray in [file for file in target.iterdir() if f"sha256:{file.name}" not in named]:
        stray.unlink()  # of rows that were forgotten while they were read
    lacking = sorted(digest for digest in named if not (target / _hex(digest)).is_file())
    for start in range(0, len(lacking), READ_AT_ONCE):
        some = lacking[start : start + READ_AT_ONCE]
        medical = await _write(_pieces(stub, version, some), target)
        await _write(_pieces(stub, version, medical, dataset.RENDERING_PNG), target)


def _named(files: Sequence[Path]) -> set[str]:
    """The images and sounds that rows name."""
    found: set[str] = set()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                row: Any = _decode(line)
                found.update(digests({"images": row.images, "videos": row.videos, "audios": row.audios}))
    return found


async def _pieces(
    stub: dataset.AssetServiceAsyncStub,
    version: str,
    wanted: Sequence[str],
    rendering: dataset.Rendering = dataset.RENDERING_ORIGINAL,
) -> AsyncGenerator[tuple[str, bool, bytes]]:
    """The bytes of images with the digest, and whether they are DICOM's own; those of one are not interrupted."""
    left, digest, medical = iter(wanted), "", False
    if not wanted:
        return
    request = dataset.ReadAssetsRequest(name=version, digests=wanted, rendering=rendering)
    async for piece in stub.ReadAssets(request):
        if piece.HasField("asset"):
            digest = next(left)
            medical = piece.asset.type == DICOM and rendering == dataset.RENDERING_ORIGINAL
        yield digest, medical, piece.data


async def _write(pieces: AsyncGenerator[tuple[str, bool, bytes]], target: Path) -> list[str]:
    """Writes images, each whole or not at all under its name; returns those of DICOM, which are not written."""
    digest, left_out = "", dict[str, None]()
    draft = target / "draft.part"

    def finish() -> None:
        if digest and digest not in left_out:
            draft.rename(target / _hex(digest))

    async with aclosing(pieces):
        async for of, medical, data in pieces:
            if of != digest:
                finish()
                digest = of
                draft.unlink(missing_ok=True)
            if medical:
                left_out[of] = None
            else:
                with draft.open("ab") as file:
                    file.write(data)
    finish()
    return list(left_out)


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
