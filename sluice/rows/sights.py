"""Texts of a row with its images, videos and sounds where their marks stand, as models that see and hear are asked.

No file is opened here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sluice.rows.mentions import MARKS

_SPLIT = re.compile("(" + "|".join(MARKS.values()) + ")").split
_KINDS = {mark: kind for kind, mark in MARKS.items()}


class Part(NamedTuple):
    """A piece of a text, the digest `sha256:…` of an image or a sound, or those of a video's frames; one of them."""

    text: str = ""
    image: str = ""
    frames: tuple[str, ...] = ()
    audio: str = ""


def parts(row: Mapping[str, Any], contents: Sequence[str]) -> list[list[Part]]:
    """The parts of each of a canonical row's texts. Raises ValueError where marks and what the row names differ.

    In a row without sounds `<audio>` is a word like any other.
    """
    named = {kind: iter(row.get(kind) or ()) for kind in MARKS if row.get(kind) or kind != "audios"}
    found = [list(_parts(content, named)) for content in contents]
    if any(True for left in named.values() for _ in left):
        raise ValueError("names something for which there is no mark")
    return found


def _parts(content: str, named: Mapping[str, Iterator[Any]]) -> Iterator[Part]:
    for piece in _SPLIT(content):
        kind = _KINDS.get(piece, "")
        if kind not in named:
            if piece:
                yield Part(text=piece)
            continue
        if not (value := next(named[kind], None)):
            raise ValueError(f"has more marks than {kind}")
        match kind:
            case "images":
                yield Part(image=value)
            case "videos":
                yield Part(frames=tuple(value))
            case _:
                yield Part(audio=value)


def in_frames(parts: Sequence[Part]) -> list[Part]:
    """The parts as a model without an input for videos is shown them: each frame is an image."""
    return [each for part in parts for each in (map(_image, part.frames) if part.frames else [part])]


def digests(row: Mapping[str, Any]) -> Iterator[str]:
    """The images, frames and sounds that a canonical row names; one may come several times."""
    yield from row.get("images") or ()
    for frames in row.get("videos") or ():
        yield from frames
    yield from row.get("audios") or ()


def _image(digest: str) -> Part:
    return Part(image=digest)
