"""Compressed frames of DICOM files, decompressed by imagecodecs; a decoder as pydicom asks for one.

It takes every JPEG, JPEG-LS and JPEG 2000 syntax of DICOM and raises on a damaged frame. The usual decoder, GDCM, ends
the process on some of them, and refuses JPEG of 12 bits.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

NAME = "imagecodecs"
#: Asked for by pydicom, to say what is missing; here nothing ever is.
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {}


def is_available(uid: str) -> bool:
    """Whether frames of this transfer syntax can be decompressed."""
    return uid in _syntaxes()


@cache
def register() -> frozenset[str]:
    """Makes the decoder known to pydicom, once; returns the transfer syntaxes that it takes."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    for uid in _syntaxes():
        get_decoder(UID(uid)).add_plugin(NAME, (__name__, "decode_frame"))
    return _syntaxes()


def decode_frame(stream: bytes, runner: DecodeRunner) -> bytes:
    """The samples of one frame, color by pixel and colors as they are stored. Raises what imagecodecs raises."""
    import imagecodecs
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

    if runner.transfer_syntax in JPEG2000TransferSyntaxes:
        samples = imagecodecs.jpeg2k_decode(stream)
        if str(runner.photometric_interpretation) in ("YBR_ICT", "YBR_RCT"):  # undone by the decoder
            runner.set_option("photometric_interpretation", "RGB")
    elif runner.transfer_syntax in JPEGLSTransferSyntaxes:
        samples = imagecodecs.jpegls_decode(stream)
    else:
        colors = "RGB" if runner.samples_per_pixel > 1 else None  # the same in and out: no conversion
        samples = imagecodecs.jpeg8_decode(stream, colorspace=colors, outcolorspace=colors)
    runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", samples.dtype.itemsize * 8)
    return bytes(samples.tobytes())


@cache
def _syntaxes() -> frozenset[str]:
    from pydicom import uid

    jpeg = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
    return frozenset((*jpeg, uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000))
