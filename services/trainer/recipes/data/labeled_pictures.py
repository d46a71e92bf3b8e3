"""Rows of texts with images and labels, and batches of them for one model that reads both or for an encoder of each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from services.trainer.recipes.data.picture_batches import OF_TEXT, Template
from services.trainer.recipes.data.pictures import open_picture
from services.trainer.recipes.data.rows import Classified, read_rows
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.learning.classes import Classes, Target
from services.trainer.recipes.models.encoders import choose_pad, longest
from sluice.fusion import words
from sluice.rows.sights import parts
from sluice.senses import MOST_SAID, too_many


@dataclass(frozen=True)
class Shown(Classified):
    """A text with its labels and images; `content` has both in turn, as chat templates of models that see take it."""

    content: list[dict[str, str]]
    images: list[Path]

    def as_asked(self, urls: Iterable[str]) -> list[dict[str, Any]]:
        """The content in the words of an OpenAI client, its images by these URLs."""
        left = iter(urls)
        return [
            dict(part) if part["type"] == "text" else {"type": "image_url", "image_url": {"url": next(left)}}
            for part in self.content
        ]


def read_shown(path: Path) -> list[Shown]:
    """The rows of `in/train.jsonl`, say, with their images below `in/assets/`. Raises BadInput."""
    return read_rows(path, lambda row, where: _shown(row, where, path.parent / "assets"))


def _shown(row: Any, where: str, assets: Path) -> Shown:
    match row:
        case {"text": str(text), "label": [*labels]} if all(isinstance(each, str) and each for each in labels):
            pass
        case _:
            raise BadInput(f"{where} has no string `text`, or no list `label` of non-empty strings.")
    if row.get("videos") or row.get("audios"):
        raise BadInput(f"{where} names videos or sounds, which this recipe gives to no model; leave such rows out.")
    try:
        (several,) = parts(row, [text])
    except ValueError as error:
        raise BadInput(f"{where} has other marks in its text than it names images.") from error
    images = [assets / part.image.removeprefix("sha256:") for part in several if part.image]
    said = words(part.text for part in several)
    if not images or not said:
        raise BadInput(f"{where} has no image, or no text beside its images; this recipe is for both.")
    if missing := next((file for file in images if not file.is_file()), None):
        raise BadInput(f"{where} names an image {missing.name[:12]}… that is not below in/assets.")
    content = [{"type": "text", "text": part.text} if part.text else {"type": "image"} for part in several]
    return Shown(said, list(dict.fromkeys(labels)), where, content, images)


@dataclass(frozen=True)
class Given:
    """A row as a model reads it: `text` as its processor takes it, `length` the tokens of all, `target` the answer."""

    row: Shown
    text: str
    length: int
    target: Target


class ReadsOne:
    """A text with its images as one sequence, a message of the user."""

    def __init__(self, processor: ProcessorMixin, model: PreTrainedModel, asked: int) -> None:
        self.template, self.model = Template(processor), model
        self.max_length = longest(processor.tokenizer, model, asked)

    def give(self, row: Shown, target: Target) -> Given:
        text = self.template.whole([{"role": "user", "content": row.content}])
        return Given(row, text, self.template.length(text, row.images), target)

    def settle(self, given: Sequence[Given]) -> None:
        """Has what fills up a batch be a token that ends none of these. Raises BadInput where there is none."""
        choose_pad(self.template.tokenizer, self.model, (self.template.ids(each.text)[-1] for each in given))

    def batch(self, texts: Sequence[str], images: Sequence[list[Image.Image]]) -> dict[str, Tensor]:
        return self.template.batch(texts, images)


class ReadsEach:
    """A text, of which what is beyond the longest is cut off, and one image."""

    def __init__(self, processor: ProcessorMixin, model: PreTrainedModel, asked: int) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.max_length = longest(self.tokenizer, model, asked)
        self.tokenizer.model_max_length = self.max_length  # is saved, and an engine cuts there

    def give(self, row: Shown, target: Target) -> Given:
        if len(row.images) > 1:
            raise BadInput(f"{row.where} has {len(row.images)} images; fusion late has a vector of one: take early.")
        return Given(row, row.text, len(self._tokens([row.text]).input_ids[0]), target)

    def settle(self, given: Sequence[Given]) -> None:
        """There is nothing to settle: texts are read at their first end."""

    def batch(self, texts: Sequence[str], images: Sequence[list[Image.Image]]) -> dict[str, Tensor]:
        flat = [image for several in images for image in several]
        pixels = self.processor.image_processor(flat, return_tensors="pt")
        read = self._tokens(texts, padding=True, padding_side="right", return_tensors="pt")
        return {**read, **pixels}

    def _tokens(self, texts: Sequence[str], **how: Any) -> Any:
        return self.tokenizer(list(texts), truncation=True, max_length=self.max_length, **how)


def fitting(reader: ReadsOne | ReadsEach, classes: Classes, rows: Sequence[Shown]) -> list[Given]:
    """The rows that an engine can be asked, of at most the longest length, images included. Raises BadInput if none."""
    askable = [row for row in rows if not too_many(len(row.images))]
    if rows and not askable:
        raise BadInput(f"All {len(rows)} rows have more than engines take in one request: {MOST_SAID}; cut them up.")
    given = [reader.give(row, classes.target(row)) for row in askable]
    fits = [each.length <= reader.max_length for each in given]
    if given and not any(fits):
        raise BadInput(
            f"All {len(given)} rows are longer than max_length {reader.max_length}; the shortest has "
            f"{min(each.length for each in given)} tokens with its images, so raise max_length or scale images down."
        )
    return list(compress(given, fits))


@dataclass(frozen=True)
class Collator:
    """Opens the images of a batch, and no others."""

    reader: ReadsOne | ReadsEach

    def __call__(self, several: Sequence[Given]) -> dict[str, Tensor]:
        images = [[open_picture(file) for file in each.row.images] for each in several]
        batch = self.reader.batch([each.text for each in several], images)
        return {**batch, "labels": torch.tensor([each.target for each in several])}


def check_given(batch: dict[str, Tensor], several: Sequence[Given]) -> None:
    """Prove on a collated batch of these rows that there are pixels of each, as many tokens as were counted, and the
    labels of each in its place. Raises BadInput.
    """
    pixels = [made for name, made in batch.items() if name not in OF_TEXT and made.is_floating_point()]
    if not pixels or not all(made.numel() and bool(made.isfinite().all()) for made in pixels):
        raise BadInput("The base model's processor makes no pixel values of images; it would be trained blind.")
    if batch["attention_mask"].sum(1).tolist() != [each.length for each in several]:
        raise BadInput("The base model's processor makes another number of tokens of a row than was counted.")
    if batch["labels"].tolist() != [each.target for each in several]:
        raise BadInput("The labels of a batch are not those of its rows.")
