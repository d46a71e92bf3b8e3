"""Texts of a row with its images where their marks stand, as models that see are asked; no image is opened here.

A model is shown a video as its frames, one image after the other.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_MARK = re.compile(r"(<image>|<video>)")


class Part(NamedTuple):
    """A piece of a text, or the digest `sha256:…` of an image; the other one is empty."""

    text: str = ""
    image: str = ""


def parts(row: Mapping[str, Any], contents: Sequence[str]) -> list[list[Part]]:
    """The parts of each of a canonical row's texts. Raises ValueError where marks and what the row names differ."""
    images = iter(row.get("images") or ())
    videos = iter(row.get("videos") or ())
    found = [list(_parts(content, images, videos)) for content in contents]
    if any(True for left in (images, videos) for _ in left):
        raise ValueError("names images for which there is no mark")
    return found


def _parts(content: str, images: Iterator[str], videos: Iterator[Sequence[str]]) -> Iterator[Part]:
    for piece in _MARK.split(content):
        if piece not in ("<image>", "<video>"):
            if piece:
                yield Part(text=piece)
            continue
        named = next(images if piece == "<image>" else videos, None)
        if not named:
            raise ValueError("has more marks than images")
        yield from (Part(image=digest) for digest in ([named] if isinstance(named, str) else named))


def digests(row: Mapping[str, Any]) -> Iterator[str]:
    """The images and frames that a canonical row names; one may come several times."""
    yield from row.get("images") or ()
    for frames in row.get("videos") or ():
        yield from frames
