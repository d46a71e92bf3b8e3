"""Plain pictures without what is said beside their pixels: names, places, notes, previews; what is on them stays.

JPEG and PNG keep their pixels as they are coded, where each part of them is one that showing them needs and has the
form that it must have; anything else of one frame becomes a PNG. How it is turned is kept.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from sluice.rows.deidentify.colors import MAX_PROFILE, color_profile, small
from sluice.rows.deidentify.jpeg import Unclear, plain_jpeg
from sluice.rows.media import UndecodableError, as_png
from sluice.rows.media.looking import opened

_ORIENTATION = 0x0112
#: Channels of a PNG by its color type (PNG 3rd edition, 11.2.1), and the steps of its interlacing (8.1).
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
#: What Pillow finds in pictures that say nothing.
_SILENT = frozenset(
    ("dpi", "jfif", "jfif_version", "jfif_unit", "jfif_density", "adobe", "adobe_transform", "progressive")
)
_COLORED = frozenset(("progression", "icc_profile", "transparency", "gamma", "chromaticity", "srgb", "interlace"))


def bare(content: bytes, kind: str) -> bytes:
    """An image of the type ``kind``, such as `image/jpeg`, that was decoded before, without what is said beside it.

    Raises UndecodableError for one that would lose pixels by it: several frames, or numbers that no PNG holds.
    """
    with opened(content) as image:
        turn = image.getexif().get(_ORIENTATION, 1)
        several, mode = getattr(image, "n_frames", 1) > 1, image.mode
        about = _exif(int(turn)) if turn in range(2, 9) else b""
    if kind != "image/jpeg" and (several or mode in ("F", "I")):
        raise _loses_pixels()
    try:
        if kind == "image/jpeg":
            plain = plain_jpeg(content, about)
        elif kind == "image/png":
            plain = _png(content, about)
        else:
            plain, about = _png(as_png(content), b""), b""
    except Unclear:
        return _anew(content)
    return plain if _silent(plain, about) else _anew(content)


def _loses_pixels() -> UndecodableError:
    found, repair = "one of several frames or of large numbers", "give each frame as PNG, without notes in it"
    return UndecodableError("identifies-person", "a picture that can be kept without its notes", found, repair)


def _exif(turn: int) -> bytes:
    """What says how a picture is to be turned, and nothing else."""
    from PIL import Image

    exif = Image.Exif()
    exif[_ORIENTATION] = turn
    return exif.tobytes()


def _silent(plain: bytes, about: bytes) -> bool:
    """Whether a reader finds nothing in it but pixels, their colors and how it is turned."""
    try:
        with opened(plain) as image:
            image.load()
            return image.info.keys() - _SILENT - _COLORED <= {"exif"} and image.info.get("exif", b"") == about
    except UndecodableError:  # the picture itself was decoded before: something was taken that it needs
        return False


def _anew(content: bytes) -> bytes:
    """The decoded pixels as PNG, upright."""
    from PIL import ImageOps

    sink = io.BytesIO()
    with opened(content) as image:
        if image.mode != "I;16" and any(
            ";16" in str(tile) for tile in getattr(image, "tile", ())
        ):  # which Pillow cuts to 8 bits
            raise _loses_pixels()
        upright = ImageOps.exif_transpose(image)
        upright = upright.convert("RGB") if upright.mode == "CMYK" else upright
        upright.info = {name: upright.info[name] for name in ("transparency",) if name in upright.info}
        upright.save(sink, "PNG")
    return sink.getvalue()


def _png(content: bytes, about: bytes) -> bytes:
    """Chunk by chunk to the end; those that it needs not, or that have not their form, are left out."""
    kept: dict[bytes, bytes] = {}
    pixels: list[bytes] = []
    for name, said in _chunks(content):
        if not kept and (name != b"IHDR" or len(said) != 13 or said[9] not in _CHANNELS or said[12] > 1):
            raise Unclear
        if name == b"IDAT":
            kept[name] = b""  # in its place; joined below
            pixels.append(said)
        elif plain := _plain_chunk(name, said, kept.get(b"IHDR", said)):
            if name in kept:
                raise Unclear
            kept[name] = plain
        if name == b"IHDR" and about:
            kept[b"eXIf"] = about.removeprefix(b"Exif\0\0")
    kept[b"IDAT"] = b"".join(pixels)
    _check_pixels(kept[b"IDAT"], kept[b"IHDR"])
    chunks = [
        struct.pack(">L", len(said)) + name + said + struct.pack(">L", zlib.crc32(name + said))
        for name, said in [*kept.items(), (b"IEND", b"")]
    ]
    return content[:8] + b"".join(chunks)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each up to the last. Raises Unclear where one is cut."""
    place, name = 8, b""
    while name != b"IEND":
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        name = content[place + 4 : place + 8]
        if end + 4 > len(content):
            raise Unclear
        yield name, content[place + 8 : end]
        place = end + 4


def _plain_chunk(name: bytes, said: bytes, head: bytes) -> bytes:
    """What a chunk but that of the pixels says of how they look (PNG 3rd edition, 11.2 and 11.3); empty: nothing."""
    depth, color, size = head[8], head[9], len(said)
    if name == b"iCCP":
        try:
            packed = said[said.index(b"\0") + 2 :]
            profile = color_profile(zlib.decompressobj().decompress(packed, MAX_PROFILE))
        except (ValueError, zlib.error):
            return b""
        return b"icc\0\0" + zlib.compress(profile) if profile else b""
    fits = {
        b"IHDR": size == 13,
        b"PLTE": color == 3 and size % 3 == 0 and size <= 3 << depth,
        b"tRNS": size == {0: 2, 2: 6}.get(color, -1) or (color == 3 and size <= 1 << depth),
        b"sBIT": size == (3 if color == 3 else _CHANNELS[color]) and max(said) <= 16,
        b"sRGB": size == 1 and said[0] <= 3,
        b"cICP": size == 4 and said[2] == 0 and said[3] <= 1,
        b"gAMA": size == 4 and small(said, ">I", 1_000_000),
        b"cHRM": size == 32 and small(said, ">8I", 100_000),
    }
    return said if fits.get(name, False) else b""


def _check_pixels(packed: bytes, head: bytes) -> None:
    """Raises Unclear where the packed pixels are fewer or more than those of the picture, or something follows."""
    width, height, depth, color, *_, laced = struct.unpack(">LL5B", head)
    passes = _ADAM7 if laced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    due = sum(h * (1 + -(-w * depth * _CHANNELS[color] // 8)) for w, h in sizes if w > 0 and h > 0)
    unpacking = zlib.decompressobj()
    try:
        for start in range(0, len(packed), 1 << 16):
            piece = packed[start : start + (1 << 16)]
            while piece and due >= 0:
                due -= len(unpacking.decompress(piece, 1 << 20))
                piece = unpacking.unconsumed_tail
        due -= len(unpacking.flush())
    except zlib.error:
        raise Unclear from None
    if due or not unpacking.eof or unpacking.unused_data:
        raise Unclear
