"""An image as a PNG that any viewer and any trainer takes; the bytes given stay what they are."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from sluice.rows.media.looking import MAX_PIXELS, UndecodableError, is_dicom, opened, too_large

if TYPE_CHECKING:
    from PIL.Image import Image

#: Modes that PNG has.
_PLAIN = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_ORIENTATION = 0x0112


def as_png(data: bytes, frame: int = 0) -> bytes:
    """The image as PNG, upright: of DICOM frame ``frame`` by its first window, of others the pixels as they are.

    Numbers that no PNG holds, such as fractions, are stretched to 8 bits. ``frame`` counts from 0. Raises
    UndecodableError for what is no image, or has no such frame.
    """
    if is_dicom(data):
        from sluice.rows.media import dicom

        try:
            return dicom.read(data, frame).png
        except dicom.UnreadableDicom as error:
            raise UndecodableError("undecodable-image", "an image", "another", error.message) from None
    with opened(data) as image:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        if image.format == "PNG" and frame == 0 and not turned and not getattr(image, "is_animated", False):
            image.load()
            return data
        try:
            image.seek(frame)
        except EOFError:
            found, repair = "fewer frames than that", "ask for an earlier one"
            raise UndecodableError("no-frame", f"frame {frame}", found, repair) from None
        if image.width * image.height > MAX_PIXELS:  # only the first frame was looked at before
            raise too_large(f"at most {MAX_PIXELS >> 20} million pixels", f"{image.width} × {image.height}")
        return _written(image)


def _written(image: Image) -> bytes:
    from PIL import ImageOps

    upright, sink = ImageOps.exif_transpose(image), io.BytesIO()
    upright.info.pop("exif", None)
    if upright.mode not in _PLAIN:
        upright.info.pop("icc_profile", None)  # of colors, such as CMYK, that it has no more
        upright = _numbers(upright) if upright.mode[0] in "IF" else upright.convert("RGB")
    upright.save(sink, "PNG")
    return sink.getvalue()


def _numbers(image: Image) -> Image:
    """Pixels that are numbers of more than 8 bits: in 16 bits where they fit, else from the least to the greatest."""
    import numpy as np
    from PIL.Image import fromarray

    values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode[0] == "I" and low >= 0 and high < 1 << 16:
        return fromarray(values.astype(np.uint16))
    return fromarray(np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8))
