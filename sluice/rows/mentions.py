"""Which images, videos and sounds a row names, and the marks that stand for them in its texts.

Named are paths, `sha256:` digests or `data:` URLs; where they lead is not known here. A video is the list of its
frames, or the name of the folder that they lie in.

Read are the fields of VQA sets (`image_path`), LLaVA (`image`), ms-swift and LLaMA-Factory (`images`, `videos`,
`audios`, with `<image>`, `<video>`, `<audio>` where they belong) and TRL (the same, with parts of type `image`), and
what stands inside parts of OpenAI's and Qwen's messages; those are read by `sluice.rows.pieces`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from sluice.rows.violations import RefusedError, missing, near, proposal, shape

MARKS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}
IMAGES = ("images", "image", "image_path", "image_paths", "image_url", "img_path")
VIDEOS = ("videos", "video", "video_path", "frames")
AUDIOS = ("audios", "audio", "audio_path", "audio_paths")
NAMES = {"images": IMAGES, "videos": VIDEOS, "audios": AUDIOS}
EVERY_NAME = frozenset((*IMAGES, *VIDEOS, *AUDIOS))
#: An image, a sound, or the frames of a video.
Reference = str | list[str]


class Mention(NamedTuple):
    """Something named within a text: its kind (`images`, …), and what it is; None where the row says that elsewhere."""

    kind: str
    reference: Reference | None
    field: str


def mentioned(row: dict[str, object], inside: Sequence[Mention] = ()) -> dict[str, list[Reference]]:
    """What the row names, by kind; kinds of which it names nothing are left out. RefusedError when it is unclear.

    `inside` is what its texts name, in their order.
    """
    found = {}
    for kind in MARKS:
        field, beside = _beside(row, kind)
        within = [each for each in inside if each.kind == kind]
        named = [each.reference for each in within if each.reference is not None]
        if within and not named and len(beside) != len(within):
            expected, had = f"as many as there are parts of type {kind[:-1]}: {len(within)}", str(len(beside))
            raise RefusedError(field or kind, "wrong-asset-count", expected, had, "name each once, in their order")
        if named and (len(named) < len(within) or (beside and beside != named)):
            where = within[0].field
            repair = f"name each in its part, or all of them in `{kind}`"
            raise RefusedError(where, "named-twice", "one way to name them", "two that differ", repair)
        if named or beside:
            found[kind] = named or beside
    return found


def demand(row: dict[str, object], found: dict[str, list[Reference]], kinds: Sequence[str]) -> None:
    """RefusedError when a row of a task that is about images, say, names none."""
    if any(kind in found for kind in kinds):
        return
    others = [name for name in row if name not in EVERY_NAME]
    wanted = "image_path" if "images" in kinds else kinds[0]
    rename = near(others, [wanted, *(name for kind in kinds for name in NAMES[kind] if len(name) > 5)])
    repair = proposal(rename, f"give `{wanted}` with the path of its file, beside the rows or in the archive")
    empty = next((name for kind in kinds for name in NAMES[kind] if name in row), "")
    raise RefusedError(
        empty or wanted,
        "missing-field",
        f"a field `{wanted}`",
        shape(row[empty]) if empty else shape(row),
        repair,
        rename,
    )


def marked(texts: Sequence[str], first: int, found: dict[str, list[Reference]], field: str) -> list[str]:
    """The texts with a mark for each thing named: those that are there, or as many before text number `first`.

    RefusedError when some are there and they are not as many.
    """
    given = list(texts)
    for kind, references in reversed(found.items()):
        mark = MARKS[kind]
        there = sum(text.count(mark) for text in texts)
        if not there:
            given[first] = mark * len(references) + given[first]
        elif there != len(references):
            raise RefusedError(
                field,
                "wrong-mark-count",
                f"a `{mark}` for each of the {kind} named, which are {len(references)}",
                f"{there}",
                f"put `{mark}` where each belongs, or none at all",
            )
    return given


def _beside(row: dict[str, object], kind: str) -> tuple[str, list[Reference]]:
    """The field of a row that names things of a kind, and what it names."""
    for name in NAMES[kind]:
        if name in row:
            found = list(_videos(row[name], name) if kind == "videos" else _listed(row[name], name))
            if found:
                return name, found
    return "", []


def _listed(value: object, field: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield reference(each, f"{field}[{index}]")
    elif value != "":
        yield reference(value, field)


def _videos(value: object, field: str) -> Iterator[Reference]:
    if field != "videos":
        if frames := list(_listed(value, field)):
            yield frames
        return
    for index, each in enumerate(value if isinstance(value, list) else [value]):
        if frames := list(_listed(each, f"{field}[{index}]")):
            yield frames


def reference(value: object, field: str) -> str:
    """What one value names: a text, or an object such as {"path": …}, {"url": …} or {"bytes": …} in base 64."""
    if isinstance(value, dict):
        inline = value.get("bytes")
        if isinstance(inline, str) and inline:
            return f"data:;base64,{inline}"
        for name in ("path", "url"):
            if name in value:
                return reference(value[name], f"{field}.{name}")
        raise missing(f"{field}.path", value, "give the path of its file")
    if not isinstance(value, str):
        expected = "a path, such as `images/1.png`"
        raise RefusedError(field, "wrong-type", expected, shape(value), f"give `{field}` as text in quotes")
    if not value.strip():
        raise RefusedError(field, "empty-text", "a path", shape(value), "fill it in or drop the row")
    return value


def own_field(field: str, raw: Callable[[], bytes]) -> str:
    """The field of a row as it came that names what `images[0]`, say, names in its canonical form."""
    kind, _, place = field.partition("[")
    if kind not in NAMES or not place:
        return field
    row = msgspec.json.decode(raw())
    name = next((name for name in NAMES[kind] if row.get(name)), "")
    if not name or (kind == "videos" and name != kind):
        return name or field
    return field.replace(kind, name, 1) if isinstance(row[name], list) else name
