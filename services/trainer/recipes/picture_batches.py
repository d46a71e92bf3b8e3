"""Batches of conversations about images, made by a model's own processor when they are needed; knows no trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from services.trainer.recipes.conversations import IGNORED
from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.pictures import Seen, open_picture, size_of

#: What a processor makes of texts; all else that it makes is of images.
OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels")


@dataclass(frozen=True)
class Told:
    """A row as text: `prompt` up to where the model shall speak, and the ids of what it says then, the end included.

    `length` counts the tokens of all, those of images too.
    """

    prompt: str
    said: str
    answer_ids: list[int]
    images: list[Path]
    length: int
    answer: str


class Template:
    """How a model's processor puts rows."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        if not isinstance(processor.chat_template, str):
            raise BadInput("The base model has no chat template; rows of messages need one.")
        # An image takes as many tokens as its size says, so a blank one of that size tells.
        self._tokens_of = lru_cache(maxsize=4096)(self._measure)

    def prompt(self, messages: list[dict[str, Any]]) -> str:
        """Messages as a text that ends where the model shall speak."""
        return self._rendered(messages, add_generation_prompt=True)

    def tell(self, row: Seen) -> Told:
        """A row as text. Raises BadInput where the template changes the prompt once it has an answer."""
        whole = self._rendered(row.messages)
        prompt = self.prompt(row.messages[:-1])
        said = whole.removeprefix(prompt)
        if said == whole or not said:
            raise BadInput(
                "The base model's chat template changes the prompt once it has an answer; it cannot be trained with."
            )
        end = self.tokenizer.eos_token
        said = said.rstrip() if end and said.rstrip().endswith(end) else said  # what comes after the end is not said
        answer_ids = self.ids(said)
        of_images = sum(self._tokens_of(size_of(image)) for image in row.images)
        length = len(self.ids(prompt)) + of_images + len(answer_ids)
        return Told(prompt, said, answer_ids, row.images, length, row.answer)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, of each image one."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def batch(self, texts: Sequence[str], images: Sequence[list[Image.Image]]) -> dict[str, Tensor]:
        """What the model takes, padded on the right."""
        return dict(
            self.processor(
                text=list(texts),
                images=list(images),
                return_tensors="pt",
                padding=True,
                padding_side="right",
                add_special_tokens=False,
            )
        )

    def _rendered(self, messages: list[dict[str, Any]], **asked: bool) -> str:
        return str(self.processor.apply_chat_template(messages, tokenize=False, **asked))

    def _measure(self, size: tuple[int, int]) -> int:
        """The tokens of an image beyond the one of its mark."""
        mark = self.prompt([{"role": "user", "content": [{"type": "image"}]}])
        made = self.batch([mark], [[Image.new("RGB", size, (200, 100, 50))]])
        return int(made["attention_mask"].sum()) - len(self.ids(mark))


def fitting(template: Template, rows: Sequence[Seen], max_length: int) -> list[Told]:
    """The rows of at most `max_length` tokens, images included; a longer one is not cut, since that takes the answer.

    Raises BadInput if none fits.
    """
    told = [template.tell(row) for row in rows]
    fits = [row.length <= max_length for row in told]
    if told and not any(fits):
        raise BadInput(
            f"All {len(told)} rows are longer than max_length {max_length}; the shortest has "
            f"{min(row.length for row in told)} tokens with its images, so raise max_length or scale images down."
        )
    return list(compress(told, fits))


@dataclass(frozen=True)
class Collator:
    """Opens the images of a batch, and no others, and labels the tokens of its answers alone."""

    template: Template

    def __call__(self, rows: Sequence[Told]) -> dict[str, Tensor]:
        images = [[open_picture(file) for file in row.images] for row in rows]
        batch = self.template.batch([row.prompt + row.said for row in rows], images)
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for place, row in enumerate(rows):
            end = int(batch["attention_mask"][place].sum())
            labels[place, end - len(row.answer_ids) : end] = torch.tensor(row.answer_ids)
        if not bool(((labels == IGNORED) | (labels == batch["input_ids"])).all()):
            raise BadInput(
                "The base model's tokenizer joins the answer to what stands before it; it cannot be trained with."
            )
        return {**batch, "labels": labels}


def check_seen(template: Template, batch: dict[str, Tensor], rows: Sequence[Told]) -> None:
    """Prove on a collated batch of `rows` that there are pixels, as many tokens as were counted, and a loss on the
    answers and nothing else. Raises BadInput.
    """
    pixels = [made for name, made in batch.items() if name not in OF_TEXT and made.is_floating_point()]
    if not pixels or not all(made.numel() and bool(made.isfinite().all()) for made in pixels):
        raise BadInput("The base model's processor makes no pixel values of images; it would be trained blind.")
    if batch["attention_mask"].sum(1).tolist() != [row.length for row in rows]:
        raise BadInput("The base model's processor makes another number of tokens of an image than its size says.")
    for labels, row in zip(batch["labels"].tolist(), rows, strict=True):
        counted = [label for label in labels if label != IGNORED]
        said = template.tokenizer.decode(counted, skip_special_tokens=True)
        if counted != row.answer_ids or "".join(said.split()) != "".join(row.answer.split()):
            raise BadInput(
                "The chat template puts the loss on other tokens than the answers; it cannot be trained with."
            )
