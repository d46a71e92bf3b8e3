"""JPEG files without segments that showing them needs not; what their pixels are is not known here."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from sluice.rows.deidentify.colors import color_profile

#: Where the coded pixels of a JPEG scan end: a marker that is none of theirs (ITU-T T.81 B.1.1.2).
_BEHIND_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
#: Decoders skip what stands between coded pixels and a marker: words there, of which pixels hardly make so many.
_LAST_WORDS, _WORDS = re.compile(rb"(?:[ -~]\0?){6}\xff*\Z"), re.compile(rb"(?:[ -~]\0?){12}\Z")
#: Frames of pixels that are coded as nearly all are: baseline, extended and progressive (B.2.2).
_FRAMES = (0xC0, 0xC1, 0xC2)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_JFIF, _EXIF, _ICC, _ADOBE = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"Adobe"
#: A JFIF segment that says nothing but that it is one, and all of an Adobe one but its last byte (T.872, 6.5.3).
_PLAIN_JFIF, _PLAIN_ADOBE = _JFIF + b"\1\1\0\0\1\0\1\0\0", _ADOBE + b"\0\x64\0\0\0\0"


class Unclear(Exception):
    """A picture in which something has not the form that it must have."""


def plain_jpeg(content: bytes, about: bytes) -> bytes:
    """The picture, segment by segment to its end, with ``about`` as its Exif: behind it cameras put previews and films.

    Raises Unclear where a segment that it needs has not its form.
    """
    first: dict[bytes, bytes] = {}
    profiles: list[bytes] = []
    kept: list[bytes] = []
    given: list[int] = []
    needed: set[int] = set()
    for marker, said, scan in _segments(content):
        if marker == 0xE0 and said.startswith(_JFIF) and len(said) >= 14:
            first[_JFIF] = _segment(marker, _PLAIN_JFIF)
        elif marker == 0xEE and said.startswith(_ADOBE) and len(said) >= 12:
            first[_ADOBE] = _segment(marker, _PLAIN_ADOBE + said[11:12])
        elif marker == 0xE2 and said.startswith(_ICC):
            profiles.append(said[len(_ICC) :])
        elif marker != 0xFE and not 0xE0 <= marker <= 0xEF:
            if not _shows(marker, said) or _worded(scan):
                raise Unclear
            kept.append(_segment(marker, said) + scan)
            given += _quantizers(said) if marker == 0xDB else []
            needed.update(said[8::3] if marker in _FRAMES else b"")
    if sorted(given) != sorted(needed):  # decoders pass over a table that no color uses
        raise Unclear
    if about:
        first[_EXIF] = _segment(0xE1, about)
    if profile := color_profile(b"".join(part[2:] for part in sorted(profiles, key=lambda part: part[:1]))):
        first[_ICC] = _segment(0xE2, _ICC + b"\1\1" + profile)
    return b"".join(
        [b"\xff\xd8", *(first[name] for name in (_JFIF, _EXIF, _ICC, _ADOBE) if name in first), *kept, b"\xff\xd9"]
    )


def _segment(marker: int, said: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(said) + 2) + said


def _segments(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, what the segment says, and coded pixels behind it. Raises Unclear where no marker stands or no end."""
    place = 2
    while place + 2 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # filling
            place += 1
            continue
        if marker == 0xD9:
            return
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        behind = _BEHIND_SCAN.search(content, end) if marker == 0xDA else None
        if end < place + 4 or end > len(content) or (marker == 0xDA and not behind):
            break
        said, place = content[place + 4 : end], behind.start() if behind else end
        yield marker, said, content[end:place]
    raise Unclear


def _worded(scan: bytes) -> bool:
    """Whether words stand at the end of coded pixels, or of a part of them after which decoding starts over."""
    ends = (each.start() for each in _RESTART.finditer(scan))
    return bool(_LAST_WORDS.search(scan[-32:])) or any(_WORDS.search(scan[max(end - 24, 0) : end]) for end in ends)


def _shows(marker: int, said: bytes) -> bool:
    """Whether it is a segment that decoding needs, whole and nothing more (ITU-T T.81 B.2.2 to B.2.4)."""
    if marker in _FRAMES:
        return len(said) > 5 and len(said) == 6 + 3 * said[5]
    if marker == 0xDA:
        return len(said) > 0 and len(said) == 4 + 2 * said[0]
    if marker == 0xDD:
        return len(said) == 2
    while marker == 0xC4 and len(said) >= 17 and said[0] in (0, 1, 2, 3, 16, 17, 18, 19):
        end = 17 + sum(said[1:17])
        values = said[17:end]
        if end > len(said) or len(set(values)) < len(values) or (said[0] < 16 and max(values, default=0) > 15):
            return False
        said = said[end:]
    return marker == 0xDB or (marker == 0xC4 and not said)


def _quantizers(said: bytes) -> list[int]:
    """Which tables a DQT segment gives (ITU-T T.81 B.2.4.1). Raises Unclear where one is not whole."""
    numbers = []
    while said:
        size = 129 if said[0] & 16 else 65
        if said[0] & 0xEC or len(said) < size:
            raise Unclear
        numbers.append(said[0] & 3)
        said = said[size:]
    return numbers
