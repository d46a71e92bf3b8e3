"""Rows about images: their texts in parts, and files that are opened when a batch is made; knows no model."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.rows import read_rows
from sluice.rows.sights import parts

#: Pillow warns of more pixels than this and refuses twice as many; uploads were looked at before.
_BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
#: The longest side, in pixels, of an image that goes into a file that is to stay small.
SMALL = 448
SMALL_BYTES = 1 << 18


@dataclass(frozen=True)
class Seen:
    """A conversation about images that ends with an answer.

    Contents of `messages` are lists of {"type": "text", "text": …} and {"type": "image"}, as chat templates of models
    that see take them; `images` are the files, in the order of the latter.
    """

    messages: list[dict[str, Any]]
    images: list[Path]

    @property
    def answer(self) -> str:
        """What is said last."""
        return "".join(part["text"] for part in self.messages[-1]["content"])


def read_seen(path: Path) -> list[Seen]:
    """The rows of `in/train.jsonl`, say, with their images below `in/assets/`. Raises BadInput."""
    return read_rows(path, lambda row, where: _seen(row, where, path.parent / "assets"))


def _seen(row: Any, where: str, assets: Path) -> Seen:
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages or messages[-1].get("role") != "assistant":
        raise BadInput(f"{where} has no list `messages` that ends with an answer.")
    if row.get("audios"):
        raise BadInput(f"{where} names sounds, which this recipe gives to no model; leave such rows out.")
    try:
        contents = parts(row, [message["content"] for message in messages])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{where} has other marks in its texts than it names images.") from error
    images = [assets / part.image.removeprefix("sha256:") for several in contents for part in several if part.image]
    if not images or any(part.image for part in contents[-1]) or not contents[-1]:
        raise BadInput(f"{where} has no image before its answer, or no answer of text alone.")
    if missing := next((file for file in images if not file.is_file()), None):
        raise BadInput(f"{where} names an image {missing.name[:12]}… that is not below in/assets.")
    told = [
        {"role": message["role"], "content": [_part(part.text) for part in several]}
        for message, several in zip(messages, contents, strict=True)
    ]
    return Seen(told, images)


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text} if text else {"type": "image"}


def size_of(file: Path) -> tuple[int, int]:
    """Width and height in pixels, upright, from the head of the file. Raises BadInput."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # orientations that lie on their side (EXIF 2.3, 4.6.4)
            return image.size[::-1] if turned else image.size
    except _BROKEN as error:
        raise _broken(file) from error


def open_picture(source: Path | bytes) -> Image.Image:
    """The image decoded as serving engines do it: upright, in RGB, white where one could see through it.

    Raises BadInput.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode != "RGB" and (upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info):
                seen_through = upright.convert("RGBA")
                upright = Image.new("RGB", seen_through.size, (255, 255, 255))
                upright.paste(seen_through, mask=seen_through.getchannel("A"))
            return upright.convert("RGB")
    except _BROKEN as error:
        raise _broken(source) from error


def small_copy(file: Path) -> bytes:
    """The file, or, where that is large, its image scaled down to 448 pixels as PNG. Raises BadInput."""
    if file.stat().st_size <= SMALL_BYTES and max(size_of(file)) <= 2 * SMALL:
        return file.read_bytes()
    image, made = open_picture(file), io.BytesIO()
    image.thumbnail((SMALL, SMALL))
    image.save(made, "PNG")
    return made.getvalue()


def data_url(content: bytes) -> str:
    """An image in the way that clients send one (RFC 2397)."""
    with Image.open(io.BytesIO(content)) as image:
        kind = Image.MIME.get(image.format or "", "image/png")
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _broken(source: Path | bytes) -> BadInput:
    name = f" {source.name[:12]}…" if isinstance(source, Path) else ""
    return BadInput(f"The image{name} below in/assets cannot be decoded; upload it anew as PNG or JPEG.")
