"""The parts of a message that has several: texts, and images, videos and sounds between them.

Read are OpenAI's (`image_url`, `input_audio`), Qwen's (`{"type": "image", "image": …}`), Transformers' (`path`, `url`)
and TRL's, which say only where an image belongs.
"""

from sluice.rows.mentions import MARKS, Mention, reference
from sluice.rows.violations import RefusedError, shape, text

_KINDS = {
    "image": "images",
    "image_url": "images",
    "input_image": "images",
    "video": "videos",
    "video_url": "videos",
    "audio": "audios",
    "audio_url": "audios",
    "input_audio": "audios",
}
_ABOUT = ("type", "text", "detail", "min_pixels", "max_pixels", "fps", "cache_control")


def read(value: list[object], field: str) -> tuple[str, list[Mention]]:
    """The text of a message with a mark for each image, and what the marks stand for. RefusedError."""
    texts, mentions = [], []
    for index, part in enumerate(value):
        here = f"{field}[{index}]"
        said = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and said in ("text", "input_text"):
            texts.append(text(part.get("text"), f"{here}.text"))
        elif isinstance(part, dict) and isinstance(said, str) and said in _KINDS:
            kind = _KINDS[said]
            mentions.append(_mention(part, kind, here))
            texts.append(MARKS[kind])
        else:
            expected = "a part of type text, image_url, image, video or audio"
            repair = "take files of other kinds out"
            raise RefusedError(here, "unsupported-content", expected, shape(part), repair)
    return text("".join(texts), field), mentions


def _mention(part: dict[str, object], kind: str, here: str) -> Mention:
    name = next((name for name, value in part.items() if name not in _ABOUT and value not in (None, "", {})), "")
    if not name:
        return Mention(kind, None, here)
    value, field = part[name], f"{here}.{name}"
    if name == "input_audio" and isinstance(value, dict):
        value = {"bytes": value.get("data")}
    if kind == "videos":
        frames = value if isinstance(value, list) else [value]
        return Mention(kind, [reference(each, f"{field}[{index}]") for index, each in enumerate(frames)], here)
    return Mention(kind, reference(value, field), here)
