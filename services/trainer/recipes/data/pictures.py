"""Rows about images, videos and sounds: their texts in parts, and images, which are opened when a batch is made.

Knows no model.
"""

import base64
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from services.trainer.recipes.data.rows import read_rows
from services.trainer.recipes.job.failures import BadInput
from sluice.rows.sights import Part, in_frames, parts
from sluice.senses import MOST_FRAMES, Sense, too_many

#: Pillow warns of more pixels than this and refuses twice as many; uploads were looked at before.
_BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
#: The longest side, in pixels, of an image that goes into a file that is to stay small.
SMALL = 448
SMALL_BYTES = 1 << 18


@dataclass(frozen=True)
class Seen:
    """A conversation about images, videos or sounds that ends with an answer.

    Contents of `messages` are lists of {"type": "text", "text": …} and of {"type": "image"}, "video" or "audio", as
    chat templates of models that see and hear take them; `images`, `videos`, of each its frames, and `sounds` are the
    files, in the order of these.
    """

    messages: list[dict[str, Any]]
    images: list[Path]
    videos: list[list[Path]] = field(default_factory=list)
    sounds: list[Path] = field(default_factory=list)

    @property
    def askable(self) -> bool:
        """Whether an engine of ours takes as much in one request."""
        return not too_many(len(self.images), len(self.videos), len(self.sounds))

    @property
    def answer(self) -> str:
        """What is said last."""
        return "".join(part["text"] for part in self.messages[-1]["content"])


def read_seen(path: Path, senses: Collection[Sense] = ("image",)) -> list[Seen]:
    """The rows of `in/train.jsonl`, say, with what they name below `in/assets/`, for a model of these senses.

    A video is its frames where the model takes none. Raises BadInput.
    """
    return read_rows(path, lambda row, where: _seen(row, where, path.parent / "assets", senses))


def _seen(row: Any, where: str, assets: Path, senses: Collection[Sense]) -> Seen:
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages or messages[-1].get("role") != "assistant":
        raise BadInput(f"{where} has no list `messages` that ends with an answer.")
    try:
        contents = parts(row, [message["content"] for message in messages])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{where} has other marks in its texts than it names images, videos or sounds.") from error
    if "video" not in senses:
        contents = [in_frames(several) for several in contents]
    every = [part for several in contents for part in several]
    _check_senses(every, where, senses)
    if all(part.text for part in every) or not all(part.text for part in contents[-1]) or not contents[-1]:
        raise BadInput(f"{where} has no image, video or sound before its answer, or no answer of text alone.")
    seen = Seen(
        [
            {"role": message["role"], "content": [_part(part) for part in several]}
            for message, several in zip(messages, contents, strict=True)
        ],
        [_file(assets, part.image) for part in every if part.image],
        [[_file(assets, frame) for frame in part.frames] for part in every if part.frames],
        [_file(assets, part.audio) for part in every if part.audio],
    )
    files = [*seen.images, *chain.from_iterable(seen.videos), *seen.sounds]
    if missing := next((file for file in files if not file.is_file()), None):
        raise BadInput(f"{where} names an image or a sound {missing.name[:12]}… that is not below in/assets.")
    return seen


def _check_senses(every: Sequence[Part], where: str, senses: Collection[Sense]) -> None:
    if any(part.image for part in every) and "image" not in senses:
        raise BadInput(f"{where} names images, which the base model does not see; leave such rows out.")
    if any(part.audio for part in every) and "audio" not in senses:
        raise BadInput(f"{where} names sounds, which the base model does not hear; leave such rows out.")
    if (most := max((len(part.frames) for part in every), default=0)) > MOST_FRAMES:
        raise BadInput(f"{where} has a video of {most} frames; engines take {MOST_FRAMES}, so leave some out.")


def _part(part: Part) -> dict[str, str]:
    if part.text:
        return {"type": "text", "text": part.text}
    return {"type": "image" if part.image else "video" if part.frames else "audio"}


def _file(assets: Path, digest: str) -> Path:
    return assets / digest.removeprefix("sha256:")


def size_of(file: Path) -> tuple[int, int]:
    """Width and height in pixels, upright, from the head of the file. Raises BadInput."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # orientations that lie on their side (EXIF 2.3, 4.6.4)
            return image.size[::-1] if turned else image.size
    except _BROKEN as error:
        raise _broken(file) from error


def frame_size(video: Sequence[Path]) -> tuple[int, int]:
    """Width and height of the frames of a video. Raises BadInput where they differ."""
    sizes = {size_of(frame) for frame in video}
    if len(sizes) > 1:
        raise BadInput("A video has frames of different sizes; scale them to one.")
    return sizes.pop()


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
    return small_copies([file])[0]


def small_copies(frames: Sequence[Path]) -> list[bytes]:
    """The frames of a video, all as they are or, where one is large, all scaled down: they stay of one size.

    Raises BadInput.
    """
    if all(file.stat().st_size <= SMALL_BYTES and max(size_of(file)) <= 2 * SMALL for file in frames):
        return [file.read_bytes() for file in frames]
    return [_scaled_down(file) for file in frames]


def _scaled_down(file: Path) -> bytes:
    image, made = open_picture(file), io.BytesIO()
    image.thumbnail((SMALL, SMALL))
    image.save(made, "PNG")
    return made.getvalue()


def data_url(content: bytes) -> str:
    """An image in the way that clients send one (RFC 2397)."""
    with Image.open(io.BytesIO(content)) as image:
        kind = Image.MIME.get(image.format or "", "image/png")
    return f"data:{kind};base64,{plain(content)}"


def plain(content: bytes) -> str:
    """Bytes in base 64."""
    return base64.b64encode(content).decode("ascii")


def _broken(source: Path | bytes) -> BadInput:
    name = f" {source.name[:12]}…" if isinstance(source, Path) else ""
    return BadInput(f"The image{name} below in/assets cannot be decoded; upload it anew as PNG or JPEG.")
