"""Paths of files beside rows: how they are compared, and what their names tell; no file is opened."""

from __future__ import annotations

import posixpath
import unicodedata

MAX_PATH = 1024
IMAGES = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "gif", "jp2", "ppm", "pgm")
SOUNDS = ("wav", "flac", "ogg", "mp3")
DICOMS = ("dcm", "dicom", "ima", "")
_LITTER = ("thumbs.db", "desktop.ini", "dicomdir")


def path_of(name: str) -> str | None:
    """A path as it is looked for: `/` between folders, no `.` and accents composed; None when it leads out."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/"))
    if not plain or len(plain) > MAX_PATH or "\0" in plain or plain.startswith("/") or plain[1:3] == ":/":
        return None
    found = posixpath.normpath(plain)
    return None if found in (".", "..") or found.startswith("../") or ".." in plain.split("/") else found


def is_litter(name: str) -> bool:
    """Whether a system has left the file there, and nobody means it."""
    parts = name.split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts) or parts[-1].lower() in _LITTER


def suffix_of(name: str) -> str:
    """What stands behind the last dot of the file's name, in small letters."""
    return posixpath.splitext(name)[1][1:].lower()


def may_be_asset(name: str) -> bool:
    """Whether the file's name is one of an image or a sound, or of a DICOM file, which often has no ending."""
    suffix = suffix_of(name)
    return suffix in (*IMAGES, *SOUNDS, *DICOMS) or suffix.isdigit()
