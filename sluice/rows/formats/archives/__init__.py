"""Archives: rows in files beside the images and the like that they name. A hostile one is refused, never unpacked.

Nothing is written anywhere: members are read where they are, or as they come by.
"""

from collections.abc import Callable
from typing import BinaryIO

from sluice.rows.formats.archives.contract import Archive, Member, RefusedArchiveError
from sluice.rows.formats.archives.tar import PlainTar, StreamedTar
from sluice.rows.formats.archives.zip import Zip

__all__ = ["Archive", "Member", "RefusedArchiveError", "open_archive"]


def open_archive(file: BinaryIO, form: str, compression: str, meet: Callable[[str, bytes], None]) -> Archive:
    """The archive in a file of this form.

    One that can only be read from the front shows each member that may be an image or a sound to `meet`, by name and
    content, while it is opened: no other way leads to them later. Raises RefusedArchiveError, DamagedError, BombError.
    """
    if form == "zip":
        return Zip(file)
    return StreamedTar(file, compression, meet) if compression else PlainTar(file)
