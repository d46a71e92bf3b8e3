"""DICOM files as images: a frame as an 8-bit PNG, and the few attributes that describe it. It removes no identity.

What a file declares is checked before anything is allocated for it, and each frame is decoded alone.
"""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.rpc.errors import Invalid
from sluice.rows.media import dicom_codecs

if TYPE_CHECKING:
    from pydicom import Dataset

    from sluice.rows.media.dicom_pixels import Pixels

MAX_FILE_BYTES = 1 << 29
MAX_FRAME_PIXELS = 1 << 26
MAX_FRAMES = 1 << 16
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
_CODES = {
    "modality": "Modality",
    "body_part": "BodyPartExamined",
    "view_position": "ViewPosition",
    "laterality": "ImageLaterality",
    "photometric": "PhotometricInterpretation",
}


class UnreadableDicom(Invalid):
    """The bytes are no DICOM file, or hold no image that can be had; it says why, and never what is in the file."""

    @property
    def fault(self) -> str:
        """What is wrong, without the advice."""
        return self.message.partition("; ")[0]

    @property
    def repair(self) -> str:
        """What may be done about it."""
        return self.message.partition("; ")[2] or "export it again, best uncompressed"


class CutDicom(UnreadableDicom):
    """The file ends before its picture does."""


@dataclass(frozen=True)
class Image:
    """One frame of a DICOM file.

    ``png`` has 8 bits a sample, gray or RGB, as a viewer shows it at first: after the modality LUT and the first VOI
    window (the whole range of values where there is none), MONOCHROME1 inverted. ``attributes`` identify nobody:
    modality, body_part, view_position, laterality, photometric (those that the file has), rows, columns, frames.
    """

    png: bytes
    attributes: dict[str, str | int]


def read(source: bytes | Path, frame: int = 0) -> Image:
    """Frame ``frame`` of a DICOM file, from 0. Raises UnreadableDicom.

    Sources: PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT).
    """
    dataset = parse(source)
    with translated("shown"):
        attributes = _described(dataset)
        if not 0 <= frame < int(attributes["frames"]):
            raise UnreadableDicom(f"frame {frame} is asked for, and the frames are 0 to {attributes['frames']} - 1")
        return _image(dataset, attributes, frame)


def frames(source: bytes | Path) -> Iterator[Image]:
    """Every frame of a DICOM file, one after the other; only one is in memory. Raises UnreadableDicom."""
    dataset = parse(source)
    with translated("shown"):
        attributes = _described(dataset)
    for frame in range(int(attributes["frames"])):
        with translated("shown"):
            image = _image(dataset, attributes, frame)
        yield image


def check(source: bytes | Path, most_pixels: int) -> tuple[int, int]:
    """Decode every frame of a DICOM file; returns (columns, rows). Raises UnreadableDicom.

    So it does where all frames together have more than ``most_pixels``.
    """
    dataset = parse(source)
    with translated("shown"):
        attributes = _described(dataset)
        rows, columns, count = (int(attributes[name]) for name in ("rows", "columns", "frames"))
        if rows * columns * count > most_pixels:
            raise UnreadableDicom(
                f"the DICOM file has {count} frames of {rows} × {columns} pixels, and {most_pixels >> 20} million are "
                "the most of all together; split it by frames"
            )
        for frame in range(count):
            _decoded(dataset, frame)
    return columns, rows


def describe(source: bytes | Path | Dataset) -> dict[str, str | int]:
    """What the header says that identifies nobody; the attributes of `Image`. Raises UnreadableDicom."""
    dataset = parse(source) if isinstance(source, bytes | Path) else source
    with translated("read"):
        return _described(dataset)


def parse(source: bytes | Path, most_bytes: int = MAX_FILE_BYTES) -> Dataset:
    """The data set of a DICOM file; its values are not looked at yet. Raises UnreadableDicom.

    So it does for a file of more than ``most_bytes``, or a deflated one that would become that.
    """
    import pydicom

    data = source if isinstance(source, bytes) else _contents(source, most_bytes)
    if data[128:132] != b"DICM":
        raise UnreadableDicom(
            "the file is no DICOM file: `DICM` is missing at byte 128; export it again as DICOM Part 10"
        )
    _check_deflated(data, most_bytes)
    with translated("read"):
        return pydicom.dcmread(io.BytesIO(data))


def _contents(path: Path, most_bytes: int) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise UnreadableDicom(f"the DICOM file has {size} bytes and {most_bytes} are the most; split it by frames")
        return file.read()


def _check_deflated(data: bytes, most_bytes: int) -> None:
    """Bounds what pydicom would inflate at once (PS3.5 A.5): the data set behind the file meta group."""
    if _DEFLATED not in data[132:4096]:
        return
    if data[132:138] != b"\x02\x00\x00\x00UL":
        raise UnreadableDicom("the file is deflated and does not say where its data set begins; export it uncompressed")
    (length,) = struct.unpack("<L", data[140:144])
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    size, rest = 0, data[144 + length :]
    with translated("inflated"):
        while rest and not inflate.eof and size <= most_bytes:
            size += len(inflate.decompress(rest, 1 << 20))
            rest = inflate.unconsumed_tail
    if size > most_bytes:
        raise UnreadableDicom(
            f"the deflated DICOM file would become larger than {most_bytes} bytes; split it by frames"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps pydicom from checking values on its own: its warnings and log lines quote them."""
    import pydicom.config

    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def translated(verb: str) -> Iterator[None]:
    """Whatever a library raises about such bytes becomes an UnreadableDicom; its own words may quote them."""
    try:
        with quiet():
            yield
    except Invalid:
        raise
    except Exception as error:
        raise UnreadableDicom(
            f"the DICOM file cannot be {verb} ({type(error).__name__}); export it again, best uncompressed"
        ) from None


def _described(dataset: Dataset) -> dict[str, str | int]:
    """What the file says of its image. Raises UnreadableDicom when that is no image, or one of an absurd size."""
    missing = [name for name in ("Rows", "Columns", "PhotometricInterpretation") if not dataset.get(name)]
    if missing or not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise UnreadableDicom(f"the DICOM file holds no image: {', '.join(missing) or 'PixelData'} is missing")
    size = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "frames": int(dataset.get("NumberOfFrames") or 1),
    }
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if size["rows"] * size["columns"] > MAX_FRAME_PIXELS or not 1 <= size["frames"] <= MAX_FRAMES or samples > 4:
        raise UnreadableDicom(
            f"the DICOM file declares {size['frames']} frames of {size['rows']} × {size['columns']} pixels with "
            f"{samples} samples; {MAX_FRAMES} of {MAX_FRAME_PIXELS} pixels with 4 are the most"
        )
    codes = {name: str(dataset.get(keyword) or "") for name, keyword in _CODES.items()}
    return {name: code for name, code in codes.items() if _CODE.fullmatch(code)} | size


def _image(dataset: Dataset, attributes: dict[str, str | int], frame: int) -> Image:
    from sluice.rows.media import dicom_pixels

    shown = dicom_pixels.shown(dataset, _decoded(dataset, frame), frame)
    return Image(dicom_pixels.png(shown), attributes)


def _decoded(dataset: Dataset, frame: int) -> Pixels:
    """The samples of one frame, as (rows, columns) or (rows, columns, samples)."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import pixel_array

    codecs = dicom_codecs.register()
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        _check_whole(dataset)
        return pixel_array(dataset, index=frame)
    if syntax in codecs:
        count = int(dataset.get("NumberOfFrames") or 1)
        _check_stream(get_frame(dataset.PixelData, frame, number_of_frames=count), dataset)
    try:
        return pixel_array(dataset, index=frame, decoding_plugin=dicom_codecs.NAME if syntax in codecs else "pydicom")
    except (RuntimeError, NotImplementedError, ValueError):
        raise UnreadableDicom(
            f"frame {frame} of the DICOM file is compressed as {syntax.name} and cannot be decompressed here; it is "
            "damaged or of a kind that is not supported: export it uncompressed"
        ) from None


def _check_whole(dataset: Dataset) -> None:
    """Refuses what holds less than it declares, which pydicom calls a ValueError as it does much else."""
    from pydicom.pixels.utils import get_expected_length

    if "PixelData" not in dataset or dataset.get("BitsAllocated") not in (1, 8, 16, 32):
        return
    if len(dataset.PixelData or b"") < get_expected_length(dataset):
        raise CutDicom("the DICOM file breaks off in its pixel data; export or copy it again")


def _check_stream(stream: bytes, dataset: Dataset) -> None:
    """Refuses a codestream larger than the file declares: decoders allocate what the stream says."""
    size = stream_size(stream)
    if size is None or not _boxes_end(stream):
        raise UnreadableDicom("the image in the DICOM file is no JPEG stream; export it again, best uncompressed")
    rows, columns, samples = size
    if rows > dataset.Rows or columns > dataset.Columns or samples > max(3, dataset.get("SamplesPerPixel", 1)):
        raise UnreadableDicom(
            f"the image in the DICOM file is of {rows} × {columns} pixels and the file declares {dataset.Rows} × "
            f"{dataset.Columns}; export it again"
        )


def _boxes_end(stream: bytes) -> bool:
    """Whether a walk along the boxes of a JP2 wrapper (T.800 I.4) comes to an end; pydicom 3.0 takes it in any case."""
    place = 12 if stream.startswith(b"\0\0\0\x0cjP  ") else len(stream)
    while place < len(stream) and stream[place + 4 : place + 8] != b"jp2c":
        length = int.from_bytes(stream[place : place + 4], "big")
        if length < 8:
            return False
        place += length
    return True


def stream_size(stream: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples) of a JPEG, JPEG-LS or JPEG 2000 stream; None where it is none, or is cut short.

    Sources: ITU-T T.81 B.2.2 (SOF), T.87 C.2.2 (SOF55), T.800 A.5.1 (SIZ).
    """
    if (start := stream[:4096].find(b"\xff\x4f\xff\x51")) >= 0 and len(stream) >= start + 42:
        width, height, left, top = struct.unpack(">4L", stream[start + 8 : start + 24])
        return height - top, width - left, struct.unpack(">H", stream[start + 40 : start + 42])[0]
    place = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while place + 10 <= len(stream) and stream[place] == 0xFF:
        marker, length = struct.unpack(">BH", stream[place + 1 : place + 4])
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack(">HHB", stream[place + 5 : place + 10])
        else:
            place += 2 + length
    return None
