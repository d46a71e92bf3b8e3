"""Batches of conversations about images, videos and sounds, made by a model's own processor when they are needed; knows
no trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin
from transformers.video_utils import VideoMetadata

from services.trainer.recipes.data.conversations import IGNORED
from services.trainer.recipes.data.pictures import Seen, frame_size, open_picture, size_of
from services.trainer.recipes.data.sounds import open_sound, samples_of
from services.trainer.recipes.job.failures import BadInput
from sluice.senses import MOST_SAID, Sense

#: What a processor makes of texts; all else that it makes is of images, videos and sounds.
OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels")
#: What stands in the names of numbers that are made of sounds.
HEARD = ("feature", "audio", "input_values")


@dataclass(frozen=True)
class Told:
    """A row as text: `prompt` up to where the model shall speak, and the ids of what it says then, the end included.

    `length` counts the tokens of all, those of images, videos and sounds too.
    """

    prompt: str
    said: str
    answer_ids: list[int]
    seen: Seen
    length: int


class Template:
    """How a model's processor puts rows."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self.processor, self.tokenizer = processor, processor.tokenizer
        if not isinstance(processor.chat_template, str):
            raise BadInput("The base model has no chat template; rows of messages need one.")
        # Something takes as many tokens as its size says, so a blank one of that size tells.
        self._tokens_of = lru_cache(maxsize=4096)(self._measure)

    @property
    def rate(self) -> int:
        """Samples a second of the sounds that the model takes; a model that hears."""
        return int(self.processor.feature_extractor.sampling_rate)

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
        beside = sum(self._tokens_of("image", size_of(image)) for image in row.images)
        beside += sum(self._tokens_of("video", (len(video), *frame_size(video))) for video in row.videos)
        beside += sum(self._tokens_of("audio", (samples_of(sound, self.rate),)) for sound in row.sounds)
        return Told(prompt, said, answer_ids, row, len(self.ids(prompt)) + beside + len(answer_ids))

    def whole(self, messages: list[dict[str, Any]]) -> str:
        """Messages as a text that ends with the last of them."""
        return self._rendered(messages)

    def length(self, text: str, images: Sequence[Path]) -> int:
        """The tokens of a text that the template made, those of its images too."""
        return len(self.ids(text)) + sum(self._tokens_of("image", size_of(image)) for image in images)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, of each image, video and sound one."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def opened(
        self,
        texts: Sequence[str],
        images: Sequence[Sequence[Path | bytes]],
        videos: Sequence[Sequence[Path | bytes]],
        sounds: Sequence[Path | bytes],
    ) -> dict[str, Tensor]:
        """`batch` of what files hold: images by text, and the videos, as frames, and sounds of all. Raises BadInput."""
        return self.batch(
            texts,
            [[open_picture(each) for each in several] for several in images],
            [np.stack([open_picture(frame) for frame in video]) for video in videos],
            [open_sound(each, self.rate) for each in sounds],
        )

    def batch(
        self,
        texts: Sequence[str],
        images: Sequence[list[Image.Image]],
        videos: Sequence[NDArray[np.uint8]] = (),
        sounds: Sequence[NDArray[np.float32]] = (),
    ) -> dict[str, Tensor]:
        """What the model takes, padded on the right; videos are frames × height × width × 3, sounds samples.

        Raises BadInput where the processor takes no such rows.
        """
        beside: dict[str, Any] = {}
        if any(images):
            beside["images"] = list(images) if all(images) else [image for several in images for image in several]
        if videos:
            # An engine is sent frames and no times, and takes one second from each to the next.
            about = [
                VideoMetadata(len(each), 1.0, duration=len(each), frames_indices=[*range(len(each))]) for each in videos
            ]
            beside |= {"videos": list(videos), "video_metadata": about, "videos_kwargs": {"do_sample_frames": False}}
        if sounds:
            beside |= {"audio": list(sounds), "audio_kwargs": {"sampling_rate": self.rate}}
        of_text = {"padding": True, "padding_side": "right", "add_special_tokens": False}
        try:
            return dict(self.processor(text=list(texts), **beside, text_kwargs=of_text, return_tensors="pt"))
        except ValueError as error:
            raise BadInput(
                "The base model's processor takes no rows with so many images, videos or sounds; give each row one."
            ) from error

    def _rendered(self, messages: list[dict[str, Any]], **asked: bool) -> str:
        return str(self.processor.apply_chat_template(messages, tokenize=False, **asked))

    def _measure(self, kind: Sense, shape: tuple[int, ...]) -> int:
        """The tokens of an image (width, height), a video (frames, width, height) or a sound (samples) beyond the one
        of its mark. Raises BadInput where the chat template has no mark for it.
        """
        mark, without = (self.prompt([{"role": "user", "content": parts}]) for parts in ([{"type": kind}], []))
        if mark == without:
            raise BadInput(f"The base model's chat template has no place for a part of type {kind}; rows name some.")
        match kind:
            case "image":
                made = self.batch([mark], [[Image.new("RGB", (shape[0], shape[1]), (200, 100, 50))]])
            case "video":
                count, width, height = shape
                made = self.batch([mark], [], [np.full((count, height, width, 3), 100, np.uint8)])
            case _:
                made = self.batch([mark], [], sounds=[np.zeros(shape, np.float32)])
        tokens = int(made["attention_mask"].sum()) - len(self.ids(mark))
        if kind == "audio":
            most = int(getattr(self.processor.feature_extractor, "n_samples", shape[0]))
            if shape[0] > most and self._tokens_of(kind, (most,)) == tokens:
                raise BadInput(f"A sound is longer than the {most / self.rate:g} s that the base model hears; cut it.")
        return tokens


def fitting(template: Template, rows: Sequence[Seen], max_length: int) -> list[Told]:
    """The rows that an engine can be asked, of at most `max_length` tokens, images and all; a longer one is not cut,
    since that takes the answer.

    Raises BadInput if none fits.
    """
    askable = [row for row in rows if row.askable]
    if rows and not askable:
        raise BadInput(f"All {len(rows)} rows have more than engines take in one request: {MOST_SAID}; cut them up.")
    told = [template.tell(row) for row in askable]
    fits = [row.length <= max_length for row in told]
    if told and not any(fits):
        raise BadInput(
            f"All {len(told)} rows are longer than max_length {max_length}; the shortest has "
            f"{min(row.length for row in told)} tokens with its images, videos and sounds, so raise max_length, "
            "scale images down or cut sounds."
        )
    return list(compress(told, fits))


@dataclass(frozen=True)
class Collator:
    """Opens the images, videos and sounds of a batch, and no others, and labels the tokens of its answers alone."""

    template: Template

    def __call__(self, rows: Sequence[Told]) -> dict[str, Tensor]:
        batch = self.template.opened(
            [row.prompt + row.said for row in rows],
            [row.seen.images for row in rows],
            [video for row in rows for video in row.seen.videos],
            [sound for row in rows for sound in row.seen.sounds],
        )
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for place, row in enumerate(rows):
            end = int(batch["attention_mask"][place].sum())
            labels[place, end - len(row.answer_ids) : end] = torch.tensor(row.answer_ids)
        if not bool(((labels == IGNORED) | (labels == batch["input_ids"])).all()):
            raise BadInput(
                "The base model's tokenizer joins the answer to what stands before it; it cannot be trained with."
            )
        return {**batch, "labels": labels}


def check_mixed(template: Template, rows: Sequence[Told]) -> None:
    """Prove that the processor takes rows with and without images, or other such parts, in one batch, where there are
    both, since batches are drawn by chance. Raises BadInput.
    """
    first: dict[tuple[bool, ...], Told] = {}
    for row in rows:
        first.setdefault((bool(row.seen.images), bool(row.seen.videos), bool(row.seen.sounds)), row)
    if len(first) > 1:
        Collator(template)([*first.values()])


def check_seen(template: Template, batch: dict[str, Tensor], rows: Sequence[Told]) -> None:
    """Prove on a collated batch of `rows` that what they name is there as numbers, and takes as many tokens as were
    counted, and that there is a loss on the answers and nothing else. Raises BadInput.
    """
    made = {name for name, each in batch.items() if name not in OF_TEXT and each.is_floating_point()}
    of_sounds = {name for name in made if "pixel" not in name and any(word in name for word in HEARD)}
    of_videos = {name for name in made - of_sounds if "video" in name}
    for what, there, asked in (
        (
            "pixel values of images; it would be trained blind",
            made - of_sounds - of_videos,
            any(row.seen.images for row in rows),
        ),
        ("pixel values of videos; it would be trained blind", of_videos, any(row.seen.videos for row in rows)),
        ("features of sounds; it would be trained deaf", of_sounds, any(row.seen.sounds for row in rows)),
    ):
        if asked and not (there and all(batch[name].numel() and bool(batch[name].isfinite().all()) for name in there)):
            raise BadInput(f"The base model's processor makes no {what}.")
    if batch["attention_mask"].sum(1).tolist() != [row.length for row in rows]:
        raise BadInput(
            "The base model's processor makes another number of tokens of an image, video or sound than its size says."
        )
    for labels, row in zip(batch["labels"].tolist(), rows, strict=True):
        counted = [label for label in labels if label != IGNORED]
        said = template.tokenizer.decode(counted, skip_special_tokens=True)
        if counted != row.answer_ids or "".join(said.split()) != "".join(row.seen.answer.split()):
            raise BadInput(
                "The chat template puts the loss on other tokens than the answers; it cannot be trained with."
            )
