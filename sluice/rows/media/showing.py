"""An image as a PNG that any viewer and any trainer takes; the bytes given stay what they are."""

from __future__ import annotations

import io

from sluice.rows.media.looking import UndecodableError, is_dicom, opened


def as_png(data: bytes, frame: int = 0) -> bytes:
    """The image as PNG: of DICOM frame ``frame`` by its first window, of others the pixels as they are.

    ``frame`` counts from 0. Raises UndecodableError for what is no image, or has no such frame.
    """
    if is_dicom(data):
        from sluice.rows.media import dicom

        try:
            return dicom.read(data, frame).png
        except dicom.UnreadableDicom as error:
            raise UndecodableError("undecodable-image", "an image", "another", error.message) from None
    with opened(data) as image:
        if image.format == "PNG" and frame == 0 and not getattr(image, "is_animated", False):
            image.load()
            return data
        try:
            image.seek(frame)
        except EOFError:
            found, repair = "fewer frames than that", "ask for an earlier one"
            raise UndecodableError("no-frame", f"frame {frame}", found, repair) from None
        sink = io.BytesIO()
        shown = image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else image.convert("RGB")
        shown.save(sink, "PNG")
        return sink.getvalue()
