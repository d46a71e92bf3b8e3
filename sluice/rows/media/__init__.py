"""Images and sounds that rows name: whether they can be decoded, and what they are; whose they are is not known here.

What is imported here is light: Pillow, pydicom and soundfile come in with the first bytes that need them.
"""

from sluice.rows.media.looking import MAX_BYTES, Media, UndecodableError, is_dicom, look
from sluice.rows.media.showing import as_png

__all__ = ["MAX_BYTES", "Media", "UndecodableError", "as_png", "is_dicom", "look"]
