"""Conversations as token ids with a loss on the assistant's tokens only; knows no trainer."""

from dataclasses import dataclass
from itertools import compress
from typing import Any

from transformers import PreTrainedTokenizerBase

from services.trainer.recipes.data.packing import documents_of
from services.trainer.recipes.data.rows import Message
from services.trainer.recipes.job.failures import BadInput

IGNORED = -100  # what torch's cross entropy skips


@dataclass(frozen=True)
class Tokenized:
    """`input_ids` of a conversation; `labels` repeat them where the assistant speaks, else they are -100."""

    input_ids: list[int]
    labels: list[int]


def tokenize(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> Tokenized:
    """Assistant turns count where the chat template marks them with `{% generation %}`, else the last alone.

    Raises BadInput where the template is missing, or rewrites earlier turns so that the last answer cannot be
    told apart.
    """
    template = tokenizer.chat_template
    if not isinstance(template, str):
        raise BadInput("The base model's tokenizer has no chat template; rows of messages need one.")
    if "{% generation" in template or "{%- generation" in template:
        whole = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = whole["input_ids"], whole["assistant_masks"]
    else:
        ids = prompt_ids(tokenizer, [*messages], answer=True)
        prompt = prompt_ids(tokenizer, messages[:-1])
        if ids[: len(prompt)] != prompt:
            raise BadInput(
                "The base model's chat template changes the prompt once it has an answer; it cannot be trained with."
            )
        mask = [0] * len(prompt) + [1] * (len(ids) - len(prompt))
    return Tokenized(list(ids), [i if m else IGNORED for i, m in zip(ids, mask, strict=True)])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, answer: bool = False) -> list[int]:
    """Token ids of a conversation, ready for the model to answer, or with its answer."""
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=not answer, return_dict=True)
    return list(encoded["input_ids"])


def fitting(
    tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]], max_length: int
) -> tuple[list[list[Message]], list[Tokenized]]:
    """The conversations of at most `max_length` tokens, and their tokens; a longer one is not cut, since that
    takes the answer first. Raises BadInput if none fits.
    """
    tokenized = [tokenize(tokenizer, messages) for messages in conversations]
    fits = [len(row.input_ids) <= max_length for row in tokenized]
    check_any_fits([len(row.input_ids) for row in tokenized], max_length)
    return list(compress(conversations, fits)), list(compress(tokenized, fits))


def check_any_fits(lengths: list[int], max_length: int) -> None:
    """Raises BadInput where there are rows, of `lengths` in tokens, and none is short enough."""
    if lengths and min(lengths) > max_length:
        raise BadInput(
            f"All {len(lengths)} rows are longer than max_length {max_length}; "
            f"the shortest has {min(lengths)} tokens, so raise max_length or shorten the rows."
        )


def check_answers_only(
    tokenizer: PreTrainedTokenizerBase, batch: dict[str, Any], conversations: list[list[Message]]
) -> None:
    """Prove on a collated batch that the loss counts the answers and nothing else.

    `batch` holds `input_ids` and `labels` of `conversations` in their order, both (rows, tokens), or one sequence.
    Raises BadInput.
    """
    for labels, messages in zip(documents_of(batch, "labels"), conversations, strict=True):
        text = tokenizer.decode(labels[labels != IGNORED].tolist(), skip_special_tokens=True)
        answers = [m["content"] for m in messages if m["role"] == "assistant"]
        said = "".join(text.split())
        if said not in ("".join("".join(answers).split()), "".join(answers[-1].split())):
            raise BadInput(
                "The chat template puts the loss on other tokens than the answers; it cannot be trained with."
            )
