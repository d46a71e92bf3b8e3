"""Plain pictures under a policy: what is said beside their pixels goes, and the pixels stay what they are."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from sluice.rows.deidentify import Policy
from sluice.rows.deidentify.pictures import bare
from sluice.rows.identities import as_it_is, treatment
from sluice.rows.media import Media, UndecodableError, look
from sluice.rows.shelf import settled

SECRET = b"S9001X of somebody"
PIXELS = np.random.default_rng(7).integers(0, 255, (24, 40, 3), dtype=np.uint8)


def noted(form: str, turn: int = 1, **more: object) -> bytes:
    """A picture with somebody's name wherever its format has room for one."""
    exif, notes, sink = Image.Exif(), PngImagePlugin.PngInfo(), io.BytesIO()
    exif[0x010E], exif[0x0112] = SECRET.decode(), turn
    if form == "PNG":
        notes.add_text("Patient", SECRET.decode())
        notes.add_itxt("Patient", SECRET.decode())
        more["pnginfo"] = notes
    if form == "JPEG":
        more |= {"comment": SECRET, "xmp": SECRET, "quality": 90}
    Image.fromarray(PIXELS).save(sink, form, exif=exif, **more)
    return sink.getvalue() + (SECRET if form in ("JPEG", "PNG") else b"")


def profile(primary: int = 0x6FA2) -> bytes:
    """A color profile, in parts of which somebody's name is written: a description, a place nobody reads, a curve."""
    numbers = {name: b"XYZ " + struct.pack(">4x3l", primary, 0x38F5, 0x390) for name in (b"wtpt", b"rXYZ", b"gXYZ")}
    numbers |= {b"bXYZ": b"XYZ " + struct.pack(">4x3l", 0x249F, 0xF84, 0xB6CF), b"desc": b"text" + SECRET}
    numbers |= {name: b"curv" + struct.pack(">4xLH", 1, 0x0233) for name in (b"rTRC", b"gTRC", b"bTRC")}
    start, table, said = 132 + 12 * len(numbers), b"", b""
    for name, value in numbers.items():
        table += struct.pack(">4sLL", name, start + len(said), len(value))
        said += value.ljust(-(-len(value) // 4) * 4, b"\0")
    said += SECRET
    head = struct.pack(">L4s4s4s4s4s12x4s28s", start + len(said), b"name", b"\2\x10\0\0", b"mntr", b"RGB ", b"XYZ ",
                       b"acsp", SECRET)  # fmt: skip
    light = struct.pack(">3l", 0xF6D6, 0x10000, 0xD32D)
    return (head + light + SECRET).ljust(128, b"\0") + struct.pack(">L", len(numbers)) + table + said


def chunk(name: bytes, said: bytes) -> bytes:
    return struct.pack(">L", len(said)) + name + said + struct.pack(">L", zlib.crc32(name + said))


def markers(content: bytes) -> Iterator[int]:
    """Where the segments of a JPEG begin, the first mark and the last among them."""
    place = 2
    while content[place + 1] != 0xD9:
        yield place
        scan = content[place + 1] == 0xDA
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        while scan and (content[place] != 0xFF or content[place + 1] in (0, *range(0xD0, 0xD8))):
            place += 1
    yield place


def seen(content: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_what_is_said_beside_the_pixels_goes_and_they_look_the_same(form: str, turn: int) -> None:
    content, kind = noted(form, turn), f"image/{form.lower()}"
    assert SECRET in content
    plain = bare(content, kind)
    assert SECRET not in plain and (seen(plain) == seen(content)).all()
    assert look(plain).type == (kind if form in ("JPEG", "PNG") else "image/png")
    assert bare(plain, look(plain).type) == plain


def test_a_jpeg_in_several_scans_and_colors_of_its_own_is_the_same_picture() -> None:
    for more in ({"progressive": True}, {"icc_profile": profile()}, {"restart_marker_rows": 1}):
        content = noted("JPEG", **more)
        plain = bare(content, "image/jpeg")
        assert SECRET not in plain and (seen(plain) == seen(content)).all()
        assert look(plain).type == "image/jpeg" and bare(plain, "image/jpeg") == plain
    sink = io.BytesIO()
    Image.fromarray(PIXELS).convert("CMYK").save(sink, "JPEG", comment=SECRET)
    assert (seen(bare(sink.getvalue(), "image/jpeg")) == seen(sink.getvalue())).all()


@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("junk", [b"\0", b"\0\0", b"ab", b"\0\0\0", b"\xff\xff", SECRET, b"\xff\0" + SECRET])
def test_stray_bytes_before_any_segment_carry_nothing_over(junk: bytes, more: dict[str, object]) -> None:
    content = noted("JPEG", **more)[: -len(SECRET)]
    places = list(markers(content))
    assert len(places) > 8
    for place in places[1:]:  # what begins otherwise is not taken for a JPEG
        stray = content[:place] + junk + content[place:]
        plain = bare(stray, "image/jpeg")
        assert SECRET not in plain and (seen(plain) == seen(content)).all(), place
        assert bare(plain, look(plain).type) == plain


def test_segments_that_are_not_what_they_say_carry_nothing_over() -> None:
    content = noted("JPEG")
    table = bytes([3]) + SECRET.ljust(64, b"x")
    for marker, said in (
        (0xE0, b"JFIF\0" + SECRET),
        (0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1" + SECRET),
        (0xEE, b"Adobe" + SECRET),
        (0xEE, b"Adobe\0\x64\0\0\0\0\1" + SECRET),
        (0xE2, b"ICC_PROFILE\0\1\1" + SECRET),
        (0xE2, b"ICC_PROFILE\0\1\1" + profile()),
        (0xDB, table),
        (0xC4, bytes([0x13, *[0] * 14, 18, 0]) + SECRET),
        (0xFE, SECRET),
    ):
        at = content.index(b"\xff\xdb")
        more = content[:at] + struct.pack(">BBH", 0xFF, marker, len(said) + 2) + said + content[at:]
        plain = bare(more, "image/jpeg")
        assert SECRET not in plain and SECRET[:8] not in plain, hex(marker)
        assert (seen(plain) == seen(more)).all(), hex(marker)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_color_profile_keeps_its_colors_and_no_word(form: str) -> None:
    content = noted(form, icc_profile=profile())
    plain = bare(content, f"image/{form.lower()}")
    kept = Image.open(io.BytesIO(plain)).info["icc_profile"]
    assert SECRET not in plain and SECRET not in kept and len(kept) < len(profile())
    shown = [
        np.asarray(ImageCms.profileToProfile(Image.fromarray(PIXELS), io.BytesIO(each), ImageCms.createProfile("sRGB")))
        for each in (profile(), kept)
    ]
    assert (shown[0] == shown[1]).all() and not (shown[0] == PIXELS).all()
    other = bare(noted(form, icc_profile=profile(int.from_bytes(b"Jane", "big"))), f"image/{form.lower()}")
    assert "icc_profile" not in Image.open(io.BytesIO(other)).info


@pytest.mark.parametrize(
    "name",
    ["NAME", "NaMe", "naMe", "tEXt", "sRGB", "gAMA", "cHRM", "bKGD", "sBIT", "cICP", "PLTE", "tRNS", "IDAT", "iCCP"],
)
def test_words_in_any_chunk_of_a_png_are_left_out(name: str) -> None:
    content, words = noted("PNG")[: -len(SECRET)], chunk(name.encode(), SECRET * 2)
    behind = content.index(b"IEND") - 4
    for place in (33, behind):
        more = content[:place] + words + content[place:]
        try:
            look(more)
        except UndecodableError:  # never comes so far
            continue
        plain = bare(more, "image/png")
        assert SECRET not in plain and (seen(plain) == seen(content)).all() and look(plain).type == "image/png"


def test_a_png_keeps_how_its_colors_are_meant() -> None:
    content, notes = noted("PNG")[: -len(SECRET)], (chunk(b"gAMA", struct.pack(">L", 45455)), chunk(b"sRGB", b"\1"))
    plain = bare(content[:33] + b"".join(notes) + content[33:], "image/png")
    assert all(note in plain for note in notes)
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16"):
        sink = io.BytesIO()
        picture = Image.fromarray(PIXELS).convert("RGB" if mode == "I;16" else mode) if mode != "LA" else None
        picture = picture or Image.fromarray(PIXELS).convert("L").convert("LA")
        picture = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200) if mode == "I;16" else picture
        picture.save(sink, "PNG", **({"transparency": 3} if mode == "P" else {}))
        assert bare(sink.getvalue(), "image/png") == sink.getvalue(), mode


def test_what_would_lose_pixels_is_refused() -> None:
    frames, numbers = io.BytesIO(), io.BytesIO()
    pages = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])]
    pages[0].save(frames, "TIFF", save_all=True, append_images=pages[1:])
    Image.fromarray(PIXELS[..., 0].astype(np.float32)).save(numbers, "TIFF")
    for sink in (frames, numbers):
        with pytest.raises(UndecodableError, match="identifies-person"):
            bare(sink.getvalue(), "image/tiff")


def test_a_policy_keeps_the_cleaned_picture_and_what_it_is() -> None:
    kept: list[tuple[str, Media, bytes]] = []
    found = settled(noted("TIFF", 6), lambda *each: kept.append(each), treatment(Policy.MASK, b"k" * 16))
    [(digest, media, content)] = kept
    assert digest == found.digest and SECRET not in content
    assert (media.type, media.width, media.height) == ("image/png", 24, 40)
    assert treatment(Policy.REPORT, b"") is as_it_is
