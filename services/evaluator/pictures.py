"""Puts the bytes of images, videos and sounds into a question that names them by digest; what is in one is not known
here."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from services.evaluator.questions import Question
from sluice.senses import MOST_FRAMES, Sense, too_many

#: Gives an image or a sound, by its digest, with its type, such as `image/png`.
Read = Callable[[str], Awaitable[tuple[str, bytes]]]
#: vLLM's type of a video that is a list of frames, with commas between them; frames may be of any image format.
FRAMES = "video/jpeg"
#: What OpenAI calls a format whose type is registered under another name.
FORMATS = {"mpeg": "mp3"}


async def shown(question: Question, read: Read, *, videos: bool = False) -> Question:
    """The question as it is sent: images as `data:` URLs (RFC 2397), sounds as OpenAI's `input_audio`.

    A video goes whole to a model that takes ``videos``, to another as its frames, each an image. Raises as ``read``.
    """
    messages = question.asked.get("messages")
    if not any(_names(part) for message in messages or () for part in _parts(message)):
        return question
    whole = [
        {**message, "content": [each for part in _parts(message) for each in await _shown(part, read, videos)]}
        for message in messages or ()
    ]
    return replace(question, asked={**question.asked, "messages": whole})


def with_videos(questions: Iterable[Question]) -> bool:
    """Whether a question is about a video."""
    return any(
        part["type"] == "video_url"
        for question in questions
        for message in question.asked.get("messages", ())
        for part in _parts(message)
    )


def askable(question: Question, senses: Collection[Sense]) -> bool:
    """Whether an engine takes a question with so many images, videos and sounds, for a model of these ``senses``."""
    parts = [part for message in question.asked.get("messages", ()) for part in _parts(message)]
    kinds = Counter(part["type"] for part in parts)
    frames = [len(part["video_url"]["url"]) for part in parts if part["type"] == "video_url"]
    images, videos = kinds["image_url"], len(frames)
    if "video" not in senses:
        images, videos = images + sum(frames), 0
    return max(frames, default=0) <= MOST_FRAMES and not too_many(images, videos, kinds["input_audio"])


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _names(part: Mapping[str, Any]) -> bool:
    """Whether something stands in a part by its digest."""
    return any(digest.startswith("sha256:") for digest in _digests(part))


def _digests(part: Mapping[str, Any]) -> Iterator[str]:
    match part:
        case {"image_url": {"url": str(url)}}:
            yield url
        case {"video_url": {"url": [*frames]}}:
            yield from frames
        case {"input_audio": {"data": str(data)}}:
            yield data


async def _shown(part: Mapping[str, Any], read: Read, videos: bool) -> list[Mapping[str, Any]]:
    if not _names(part):
        return [part]
    found = [await read(digest) for digest in _digests(part)]
    plain = [base64.b64encode(content).decode("ascii") for _, content in found]
    if part["type"] == "input_audio":
        form = found[0][0].removeprefix("audio/")
        return [{"type": "input_audio", "input_audio": {"data": plain[0], "format": FORMATS.get(form, form)}}]
    if part["type"] == "video_url" and videos:
        return [{"type": "video_url", "video_url": {"url": f"data:{FRAMES};base64,{','.join(plain)}"}}]
    urls = [f"data:{kind};base64,{content}" for (kind, _), content in zip(found, plain, strict=True)]
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls]
