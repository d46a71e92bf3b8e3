"""Prompts that a model answers itself, its answers, and what they are worth; knows no method."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerState,
)

from services.trainer.recipes.data.conversations import prompt_ids
from services.trainer.recipes.data.pairs import within
from services.trainer.recipes.data.rows import Message
from services.trainer.recipes.job.failures import BadInput, Diverged
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.learning.optimization import device_type
from services.trainer.recipes.learning.parity import end_ids
from services.trainer.recipes.models.base_model import load_beside
from services.trainer.recipes.reinforcement.rewards import Rewards, Said

MAX_NEW_TOKENS = 64
BATCH = 64


@dataclass(frozen=True)
class Question:
    """A prompt, which ends with what is asked, its tokens, and the answer that the row has."""

    prompt: list[Message]
    ids: list[int]
    reference: str


@dataclass(frozen=True)
class Answers:
    """Prompts, padded on the left, with answers, padded on the right.

    `ids` and `seen` are (rows, prompt + answer tokens), `counted` is (rows, answer tokens), up to and with the token
    that ends an answer; `texts` are the answers without special tokens.
    """

    ids: Tensor
    seen: Tensor
    counted: Tensor
    texts: list[str]

    @property
    def said(self) -> Tensor:
        """The tokens of the answers: (rows, answer tokens)."""
        return self.ids[:, -self.counted.shape[1] :]

    @property
    def lengths(self) -> Tensor:
        """Tokens of each answer: (rows,) float32."""
        return self.counted.sum(1).float()


def questions(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[Message]], room: int, max_length: int
) -> list[Question]:
    """What conversations ask last, where `room` tokens are left for an answer. Raises BadInput if there is nothing."""
    made = [Question(c[:-1], prompt_ids(tokenizer, c[:-1]), c[-1]["content"]) for c in conversations if len(c) > 1]
    if conversations and not made:
        raise BadInput("No row has a prompt before its answer; there is nothing to ask the model.")
    return within(made, [len(each.ids) + room for each in made], max_length)


def check_prompts(asked: list[Question], of_step: int) -> None:
    """Raises BadInput where there are not as many rows as a step has prompts, which would never be made."""
    if len(asked) < of_step:
        raise BadInput(
            f"There are {len(asked)} rows and a step takes {of_step} prompts; lower batch_size or give more rows."
        )


@contextmanager
def drawing() -> Iterator[None]:
    """Raises Diverged where nothing can be drawn from what a model says comes next."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise Diverged("The model's probabilities are no longer numbers; lower learning_rate.") from error


@torch.no_grad()
def answered(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[list[int]],
    max_tokens: int,
    temperature: float,
) -> Answers:
    """One answer drawn to each prompt's tokens, from the probabilities at a temperature. Raises Diverged."""
    told = tokenizer.pad({"input_ids": list(asked)}, padding_side="left", return_tensors="pt").to(model.device)
    ends = end_ids(model, tokenizer)
    if not ends:
        raise BadInput("The base model has no token that ends an answer; give its tokenizer an eos_token.")
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    with drawing():
        ids = model.generate(**told, generation_config=config)
    said = ids[:, told["input_ids"].shape[1] :]
    ended = torch.isin(said, torch.tensor(ends, device=said.device)).int().cumsum(1)
    counted = (
        torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], 1) == 0
    )  # what follows the first end is padding
    texts = [
        tokenizer.decode(row[keep], skip_special_tokens=True)
        for row, keep in zip(said.cpu(), counted.cpu(), strict=True)
    ]
    return Answers(ids, torch.cat([told["attention_mask"], counted.long()], 1), counted, texts)


def token_logits(model: torch.nn.Module, answers: Answers, temperature: float, **more: Any) -> tuple[Tensor, Any]:
    """What the model made of every token of the answers before it saw it: (rows, answer tokens, vocabulary) float32
    over the temperature, and all that it gave.
    """
    count = answers.counted.shape[1]
    places = (answers.seen.cumsum(1) - 1).clamp(min=0)  # as in generation: padding before a prompt moves nothing
    given = model(
        input_ids=answers.ids,
        attention_mask=answers.seen,
        position_ids=places,
        logits_to_keep=count + 1,
        use_cache=False,
        **more,
    )
    return given.logits[:, :-1].float() / temperature, given


#: Opens the model that training began with.
Base = Callable[[], AbstractContextManager[torch.nn.Module]]


def base_of(job: JobDir, model: PreTrainedModel | PeftModel) -> Base:
    """The policy without its adapter, or the base read again from the job directory, frozen."""
    if isinstance(model, PeftModel):
        return partial(_without_adapter, model)
    return partial(nullcontext, load_beside(job, "base")[1].to(device_type()))


@contextmanager
def _without_adapter(model: PeftModel) -> Iterator[torch.nn.Module]:
    with model.disable_adapter():
        yield model


@dataclass(frozen=True)
class HeldOut:
    """Prompts that nothing is learned from, and how answers to them are drawn and valued."""

    tokenizer: PreTrainedTokenizerBase
    asked: Sequence[Question]
    rewards: Rewards
    max_tokens: int
    temperature: float

    @torch.no_grad()
    def measured(self, model: PreTrainedModel | PeftModel, base: Base | None = None) -> dict[str, float]:
        """Metrics; nothing comes of no prompts. What is random elsewhere stays as it was.

        `eval_reward` and `eval_reward_std` over the prompts, and `eval_completion_length` in tokens; without a base
        they are those before training, and are named so. With it `eval_kl` is the divergence from it in nats a token.
        """
        if not self.asked:
            return {}
        model.eval()
        worth, lengths, apart = [], [], []
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the same draws before and after
            for first in range(0, len(self.asked), BATCH):
                batch = self.asked[first : first + BATCH]
                ids = [each.ids for each in batch]
                answers = answered(model, self.tokenizer, ids, self.max_tokens, self.temperature)
                worth += self.rewards(said_by(batch, answers))
                lengths.append(answers.lengths)
                if base is not None:
                    apart.append(_divergence(model, base, answers, self.temperature))
        rewarded, length = torch.tensor(worth), torch.cat(lengths)
        found = {
            "reward": rewarded.mean(),
            "reward_std": rewarded.std(correction=0),
            "completion_length": length.mean(),
        }
        if apart:
            found["kl"] = torch.cat(apart).sum() / length.sum()
        when = "" if apart else "_before"
        return {f"eval_{name}{when}": float(value) for name, value in found.items()}


def said_by(asked: Sequence[Question], answers: Answers) -> list[Said]:
    """What rewards are given for."""
    return [Said(each.prompt, each.reference, text) for each, text in zip(asked, answers.texts, strict=True)]


def _divergence(model: torch.nn.Module, base: Base, answers: Answers, temperature: float) -> Tensor:
    """KL(model ‖ base), summed over the tokens of each answer: (rows,)."""
    ours = token_logits(model, answers, temperature)[0].log_softmax(-1)
    with base() as other:
        theirs = token_logits(other, answers, temperature)[0].log_softmax(-1)
    return ((ours.exp() * (ours - theirs)).sum(-1) * answers.counted).sum(1)


def report_rewards(state: TrainerState, window: int = 10) -> dict[str, float]:
    """The means of the last ten steps of what a trainer logged of its answers: metrics."""
    names = {"reward": "reward", "reward_std": "reward_std", "kl": "kl", "completions/mean_length": "completion_length"}
    found = {}
    for logged, name in names.items():
        values = [float(entry[logged]) for entry in state.log_history if entry.get(logged) is not None][-window:]
        if values:
            found[name] = sum(values) / len(values)
    return found
