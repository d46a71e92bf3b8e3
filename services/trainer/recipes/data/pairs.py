"""Answers to prompts as token ids, two to a prompt or one, and how likely a model finds them; knows no trainer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, TypeVar

import pyarrow
import torch
from peft import PeftConfig
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.trainer.recipes.data.conversations import IGNORED, prompt_ids, tokenize
from services.trainer.recipes.data.rows import Message, Preference
from services.trainer.recipes.data.tokens import made_once, schema_of
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.learning.parity import Prompt

Row = TypeVar("Row")
PAIRS = schema_of("prompt_ids", "chosen_ids", "rejected_ids")


@dataclass(frozen=True)
class Answer:
    """`prompt_ids` up to where the model shall speak, `answer_ids` what it says, the end token included."""

    prompt_ids: list[int]
    answer_ids: list[int]
    text: str

    @property
    def ids(self) -> list[int]:
        """Prompt and answer in one."""
        return self.prompt_ids + self.answer_ids


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the first the better one."""

    chosen: Answer
    rejected: Answer

    @property
    def columns(self) -> dict[str, list[int]]:
        """What trl's DPOTrainer makes of a row."""
        return {
            "prompt_ids": self.chosen.prompt_ids,
            "chosen_ids": self.chosen.answer_ids,
            "rejected_ids": self.rejected.answer_ids,
        }


def answer(tokenizer: PreTrainedTokenizerBase, prompt: list[Message], said: Message) -> Answer:
    """Tokens of an answer, from the chat template; what that adds after the end of the turn is left out where it
    marks answers with `{% generation %}`. Raises BadInput where prompt and answer cannot be told apart.
    """
    whole, asked = tokenize(tokenizer, [*prompt, said]), prompt_ids(tokenizer, prompt)
    if whole.input_ids[: len(asked)] != asked:
        raise BadInput(
            "The base model's chat template changes the prompt once it has an answer; it cannot be trained with."
        )
    end = max(place for place, label in enumerate(whole.labels) if label != IGNORED) + 1
    return Answer(asked, whole.input_ids[len(asked) : end], said["content"])


def pair(tokenizer: PreTrainedTokenizerBase, row: Preference) -> Pair:
    """The tokens of a row. Raises BadInput as `answer` does."""
    return Pair(answer(tokenizer, row.prompt, row.chosen), answer(tokenizer, row.prompt, row.rejected))


def pair_tokens(job: JobDir, split: str, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Preference]) -> list[Pair]:
    """The tokens of the rows of a split, made once. Raises BadInput as `answer` does."""

    def make() -> pyarrow.Table:
        return pyarrow.Table.from_pylist([pair(tokenizer, row).columns for row in rows], schema=PAIRS)

    found = made_once(job, split, PAIRS, len(rows), make).to_pydict().values()
    return [
        Pair(Answer(asked, chosen, row.chosen["content"]), Answer(asked, rejected, row.rejected["content"]))
        for asked, chosen, rejected, row in zip(*found, rows, strict=True)
    ]


def within(rows: Sequence[Row], lengths: Sequence[int], max_length: int) -> list[Row]:
    """The rows of at most `max_length` tokens; a longer one is not cut. Raises BadInput if none fits."""
    fits = [length <= max_length for length in lengths]
    if rows and not any(fits):
        raise BadInput(
            f"All {len(rows)} rows are longer than max_length {max_length}; "
            f"the shortest has {min(lengths)} tokens, so raise max_length or shorten the rows."
        )
    return list(compress(rows, fits))


def check_counted(tokenizer: PreTrainedTokenizerBase, batch: dict[str, Any], answers: Sequence[Answer]) -> None:
    """Prove on a batch that a trainer's collator made of `answers` (of pairs, the chosen ones first) that it holds
    their tokens as they are and counts those of the answers alone. Raises BadInput.
    """
    for (ids, seen, counted), given in zip(_collated(batch), answers, strict=True):
        said = tokenizer.decode(given.answer_ids, skip_special_tokens=True)
        if (
            list(compress(ids, seen)) != given.ids
            or list(compress(ids, counted)) != given.answer_ids
            or "".join(said.split()) != "".join(given.text.split())
        ):
            raise BadInput(
                "The chat template puts the loss on other tokens than the answers; it cannot be trained with."
            )


def _collated(batch: dict[str, Any]) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Ids, attention and counted tokens of each row, as trl's DPO and KTO, or its ORPO and CPO, collate them."""
    if "completion_mask" in batch:
        yield from zip(*(batch[n].tolist() for n in ("input_ids", "attention_mask", "completion_mask")), strict=True)
        return
    for side in ("chosen", "rejected"):
        counted = (batch[f"{side}_labels"] != IGNORED).tolist()
        seen = (batch[f"{side}_{name}"].tolist() for name in ("input_ids", "attention_mask"))
        yield from zip(*seen, counted, strict=True)


def check_head(adapter: PeftConfig | None) -> None:
    """Raises BadInput for an adapter on the output layer, which trl's DPO and KTO would never train."""
    targets = getattr(adapter, "target_modules", None) or ()
    if not isinstance(targets, str) and any(target.split(".")[-1] == "lm_head" for target in targets):
        raise BadInput("target_modules names lm_head, whose adapter this recipe cannot train; leave it out.")


def parity_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[Message]], max_length: int
) -> list[Prompt]:
    """The first eight prompts that leave room for an answer."""
    made = (Prompt({"messages": messages}, prompt_ids(tokenizer, messages)) for messages in prompts[:64])
    return [prompt for prompt in made if len(prompt.token_ids) + 16 <= max_length][:8]


def sees_all(arguments: dict[str, Any], rows: int) -> bool:
    """Whether training with these arguments sees each of `rows` rows once at least."""
    batch: int = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    return bool(arguments["max_steps"] * batch >= rows)


def still(model: PreTrainedModel) -> None:
    """Switch off the dropout of a base, so that policy and reference differ by what was learned; an adapter that is
    put on later keeps the dropout it is asked for.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


@torch.no_grad()
def likelihoods(model: PreTrainedModel, answers: Sequence[Answer]) -> Tensor:
    """The mean natural log-probability of each answer's tokens, given its prompt: (answers,) float32 on the CPU."""
    model.eval()
    found = torch.empty(len(answers))
    for place, given in enumerate(answers):  # one by one: no padding, and the logits of one row at a time
        ids = torch.tensor([given.ids], device=model.device)
        count = len(given.answer_ids)
        logits = model(input_ids=ids, logits_to_keep=count + 1).logits[0, -count - 1 : -1].float()
        found[place] = -torch.nn.functional.cross_entropy(logits, ids[0, -count:])
    return found


def preference(better: Tensor, worse: Tensor, when: str = "") -> dict[str, float]:
    """How often `better` is above `worse`, a tie being half, and by how much: metrics of held-out rows, named with
    `when`. The two are broadcast against each other; nothing comes of empty ones.
    """
    if not better.numel() or not worse.numel():
        return {}
    margins = better - worse
    won = (margins > 0).float() + (margins == 0).float() / 2
    return {
        f"eval_preference_accuracy{when}": won.mean().item(),
        f"eval_preference_margin{when}": margins.mean().item(),
    }
