"""Leaves what the trained weights answer, token by token, so that a serving engine can be held to it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from services.trainer.recipes.jobdir import JobDir, write_atomically

PROMPTS = 8
NEW_TOKENS = 16


@dataclass(frozen=True)
class Prompt:
    """`asked` is how a client puts it, {"prompt": …} or {"messages": …}; `token_ids` what the model saw."""

    asked: dict[str, Any]
    token_ids: list[int]


def write_parity(
    job: JobDir, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Prompt]
) -> None:
    """Greedy answers of the weights in memory, up to 16 tokens each, to the first eight prompts.

    A line: the prompt, `prompt_token_ids`, `completion_token_ids` (the end token included) and `logprobs`,
    the natural logarithm of the probability of each completion token.
    """
    model.eval()
    lines = []
    for prompt in list(prompts)[:PROMPTS]:
        completion, logprobs = greedy(model, tokenizer, prompt.token_ids)
        lines.append(
            {
                **prompt.asked,
                "prompt_token_ids": prompt.token_ids,
                "completion_token_ids": completion,
                "logprobs": logprobs,
            }
        )
    write_atomically(job.parity, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


@torch.no_grad()
def greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token_ids: list[int]
) -> tuple[list[int], list[float]]:
    """The most probable next tokens up to the end token, and their log-probabilities; one prompt."""
    ends = {tokenizer.eos_token_id, *_as_list(model.generation_config.eos_token_id)} - {None}
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )
    inputs = torch.tensor([token_ids], device=model.device)
    made = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        generation_config=config,
        return_dict_in_generate=True,
        output_logits=True,
    )
    completion = made.sequences[0, len(token_ids) :].tolist()
    logprobs = torch.stack(made.logits)[:, 0].float().log_softmax(-1)
    return completion, [logprobs[i, token].item() for i, token in enumerate(completion)]


def _as_list(value: int | list[int] | None) -> list[int | None]:
    return value if isinstance(value, list) else [value]
