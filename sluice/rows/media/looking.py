"""Bytes of an image or a sound, decoded whole to see that they can be; what is decoded is thrown away.

What a file declares is looked at before anything is allocated for it.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sluice.senses import is_rate

if TYPE_CHECKING:
    from PIL import Image

#: A larger asset is refused: it travels in one message.
MAX_BYTES = 128 << 20
MAX_PIXELS = 1 << 26
#: Of all frames of a DICOM file together.
MAX_DICOM_PIXELS = 1 << 29
MAX_SECONDS = 24 * 3600.0
#: Only what the field uses: each further format is one more parser for hostile bytes.
FORMATS = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",  # several in one, as cameras write them; opened as JPEG
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "JPEG2000": "image/jp2",
    "PPM": "image/x-portable-anymap",
}
DICOM = "application/dicom"
_SOUNDS = {"WAV": "audio/wav", "WAVEX": "audio/wav", "FLAC": "audio/flac", "OGG": "audio/ogg", "MP3": "audio/mpeg"}
_SOUND_STARTS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_SOUND_BLOCK = 1 << 16
#: An image of many pixels is decoded alone: two at once would take too much memory.
_LARGE_PIXELS = 1 << 24
_large = threading.Lock()


@dataclass(frozen=True)
class Media:
    """What bytes are: a type such as `image/png` or `application/dicom`; width and height are 0 for a sound."""

    type: str
    width: int = 0
    height: int = 0

    @property
    def kind(self) -> str:
        """`image` or `audio`."""
        return "audio" if self.type.startswith("audio/") else "image"


class UndecodableError(ValueError):
    """The bytes are no image and no sound that can be decoded; `found` and `repair` say it, and nothing of them."""

    def __init__(self, kind: str, expected: str, found: str, repair: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.expected = expected
        self.found = found
        self.repair = repair


def look(data: bytes) -> Media:
    """Decode the bytes whole and say what they are. Raises UndecodableError."""
    if len(data) > MAX_BYTES:
        raise too_large(f"at most {MAX_BYTES >> 20} MiB a file", f"{len(data) >> 20} MiB")
    if is_dicom(data):
        return _dicom(data)
    if data.startswith(_SOUND_STARTS) and data[8:12] != b"WEBP":
        return _sound(data)
    return _image(data)


def is_dicom(data: bytes) -> bool:
    """Whether it says that it is a DICOM file (PS3.10, 7.1)."""
    return data[128:132] == b"DICM"


def too_large(expected: str, found: str) -> UndecodableError:
    """A file or a picture beyond what is taken."""
    return UndecodableError("asset-too-large", expected, found, "scale it down, or cut it into several")


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """The image that Pillow makes of the bytes, not decoded yet. Raises UndecodableError."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise _undecodable("no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size: looked at below; of damage: it is decoded or not
            with Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name != "MPO"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise too_large(f"at most {MAX_PIXELS >> 20} million pixels", f"{image.width} × {image.height}")
                yield image
    except UndecodableError:
        raise
    except UnidentifiedImageError:
        raise _undecodable("bytes of no image format that is read") from None
    except Image.DecompressionBombError:
        raise too_large(f"at most {MAX_PIXELS >> 20} million pixels", "more") from None
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError, TypeError, IndexError, KeyError):
        raise _undecodable("a damaged or cut image") from None
    except Exception as error:  # decoders of damaged bytes raise what they like, such as struct.error
        raise _undecodable(f"an image that cannot be decoded ({type(error).__name__})") from None


def _image(data: bytes) -> Media:
    with opened(data) as image:
        if image.width * image.height > _LARGE_PIXELS:
            with _large:
                image.load()
        else:
            image.load()
        return Media(FORMATS[image.format or ""], image.width, image.height)


def _dicom(data: bytes) -> Media:
    from sluice.rows.media import dicom

    try:
        with _large:
            size = dicom.check(data, MAX_DICOM_PIXELS)
    except dicom.CutDicom:
        found, repair = "one that breaks off in its pixel data", "export or copy it again"
        raise UndecodableError("undecodable-image", "a DICOM file with an image", found, repair) from None
    except dicom.UnreadableDicom as error:
        raise UndecodableError("undecodable-image", "a DICOM file with an image", error.fault, error.repair) from None
    return Media(DICOM, *size)


def _sound(data: bytes) -> Media:
    import numpy as np
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            if sound.format not in _SOUNDS:
                raise _undecodable_sound("WAV, FLAC, OGG or MP3", "another", "convert it")
            if sound.frames > MAX_SECONDS * sound.samplerate:
                raise UndecodableError("asset-too-large", "at most a day of sound", "more", "cut it into several")
            if not is_rate(sound.samplerate):
                raise _undecodable_sound("a rate of 1 to 768 kHz", "another in its head", "bring it to 16 kHz, say")
            read = 0
            while len(block := sound.read(_SOUND_BLOCK, dtype="float32")):
                read += len(block)
                if not np.isfinite(block).all():
                    raise _undecodable_sound("samples that are finite", "some that are not", "export it again")
            if not read or read < sound.frames:
                raise soundfile.LibsndfileError(0)
            return Media(_SOUNDS[sound.format])
    except soundfile.LibsndfileError:
        raise _undecodable_sound(
            "a whole WAV, FLAC, OGG or MP3 file", "a damaged, cut or empty one", "export it again"
        ) from None


def _undecodable_sound(expected: str, found: str, repair: str) -> UndecodableError:
    return UndecodableError("undecodable-audio", expected, found, repair)


def _undecodable(found: str) -> UndecodableError:
    known = "PNG, JPEG, WebP, TIFF, BMP, GIF, JPEG 2000 or DICOM"
    return UndecodableError("undecodable-image", f"an image: {known}", found, "export it again, or drop the row")
