"""The canonical rows of every row schema: what is stored of a row, in whatever convention it came."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class Message(Struct, forbid_unknown_fields=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class About(Struct, kw_only=True):
    """What is said about a row: what it is called, whom it belongs with (a patient, say), and words to find it by."""

    id: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    tags: list[str] | UnsetType = UNSET


class Illustrated(About, kw_only=True):
    """What the row is about beside its texts, where a mark stands for each: images, frames of videos, sounds."""

    images: list[str] | UnsetType = UNSET
    videos: list[list[str]] | UnsetType = UNSET
    audios: list[str] | UnsetType = UNSET


class SftRow(Illustrated):
    """A conversation whose last word is the assistant's."""

    messages: list[Message]


class PretrainRow(About):
    """A text."""

    text: str


class PreferenceRow(Illustrated):
    """A prompt and two answers, of which one is better."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


class FeedbackRow(Illustrated):
    """A prompt, an answer, and whether that is a good one."""

    prompt: list[Message]
    completion: list[Message]
    label: bool


class RetrievalRow(Illustrated):
    """A query, texts that fit it, and texts that do not."""

    query: str
    positive: list[str]
    negatives: list[str]


class Entity(Struct, forbid_unknown_fields=True):
    """A part of a text, from `start` up to `end` in characters from 0, and what it is called."""

    start: int
    end: int
    label: str


class EntitiesRow(About):
    """A text and what is named in it, in order and without overlaps."""

    text: str
    entities: list[Entity]


class ClassificationRow(Illustrated):
    """A text and its labels."""

    text: str
    label: list[str]
