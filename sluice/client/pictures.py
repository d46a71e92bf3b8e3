"""Digests in rows turned into what they stand for, when a row is looked at: images, frames of videos, sounds."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sluice.rows.media import as_png, is_dicom

if TYPE_CHECKING:
    from PIL import Image

#: Gives the bytes of assets, in the order of their digests.
Contents = Callable[[Sequence[str]], Iterator[bytes]]
COLUMNS = ("images", "videos", "audios")


def image_of(content: bytes) -> Image.Image:
    """A decoded image (Pillow's); of a DICOM file its first frame in 8 bits, by its first window."""
    from PIL import Image

    image = Image.open(io.BytesIO(as_png(content) if is_dicom(content) else content))
    image.load()
    return image


def sound_of(content: bytes) -> dict[str, Any]:
    """A decoded sound: `array` of shape (samples,) or (samples, channels) in -1 to 1, and `sampling_rate` in Hz."""
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    return {"array": samples, "sampling_rate": rate}


def decoded(batch: dict[str, list[Any]], contents: Contents) -> dict[str, list[Any]]:
    """Rows, as lists by column, with what they name in place of digests; asked for in one go."""
    named = {name: batch[name] for name in COLUMNS if name in batch}
    wanted: dict[str, str] = {}
    for name, values in named.items():
        wanted |= dict.fromkeys(_digests(values), name)
    digests = list(wanted)
    found = {
        digest: sound_of(content) if wanted[digest] == "audios" else image_of(content)
        for digest, content in zip(digests, contents(digests) if digests else (), strict=True)
    }
    return {**batch, **{name: _replaced(values, found) for name, values in named.items()}}


class Decoding:
    """`decoded` as a transform of a ``datasets.Dataset``; in another process it asks by a connection of its own."""

    def __init__(self, reopen: Callable[[], Any], contents: Contents | None = None) -> None:
        """``reopen`` gives what has a method ``contents``."""
        self._reopen = reopen
        self._contents = contents

    def __reduce__(self) -> tuple[type[Decoding], tuple[Callable[[], Any]]]:
        return Decoding, (self._reopen,)

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if self._contents is None:
            self._contents = self._reopen().contents
        return decoded(batch, self._contents)


def _digests(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif value is not None:
        for each in value:
            yield from _digests(each)


def _replaced(value: Any, found: dict[str, Any]) -> Any:
    if isinstance(value, str):
        return found[value]
    return None if value is None else [_replaced(each, found) for each in value]
