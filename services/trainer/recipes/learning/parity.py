"""Leaves what the trained weights answer, tokens or values, so that a serving engine can be held to it."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from services.trainer.recipes.job.failures import Diverged
from services.trainer.recipes.job.jobdir import JobDir, write_atomically
from services.trainer.recipes.models.quantization import is_quantized
from services.trainer.recipes.models.stored import is_packed
from services.trainer.recipes.models.tuning import as_saved

PROMPTS = 8
NEW_TOKENS = 16


@dataclass(frozen=True)
class Prompt:
    """`asked` is how a client puts it, {"prompt": …} or {"messages": …}; `token_ids` what the model saw.

    `beside` is what it saw beside them, such as pixel values, by the names of its arguments.
    """

    asked: dict[str, Any]
    token_ids: list[int]
    beside: dict[str, torch.Tensor] = field(default_factory=dict)


def write_parity(
    job: JobDir, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Iterable[Prompt]
) -> None:
    """Greedy answers of the weights that were saved, up to 16 tokens each, to the first eight prompts.

    A line: the prompt, `prompt_token_ids`, `completion_token_ids` (the end token included) and `logprobs`,
    the natural logarithm of the probability of each completion token; `dtype`, where that is not float32, is what they
    were computed in. After `save`, which leaves `model` with the
    weights of its files; those of a quantized one are read again, as they are served, and the metric `served_drift`
    tells how far the two are apart, the mean absolute difference of these log-probabilities.
    """
    model.eval()
    trained = model
    if is_quantized(trained) or (isinstance(trained, PeftModel) and is_packed(trained)):
        model = as_saved(job, trained)
    lines, apart = [], []
    for prompt in list(prompts)[:PROMPTS]:
        completion, logprobs = greedy(model, tokenizer, prompt.token_ids, prompt.beside)
        if model is not trained:
            again = scored(trained, prompt.token_ids, completion)
            apart += [abs(a - b) for a, b in zip(logprobs, again, strict=True)]
        lines.append(
            {
                **prompt.asked,
                "prompt_token_ids": prompt.token_ids,
                "completion_token_ids": completion,
                "logprobs": logprobs,
                **({} if model.dtype == torch.float32 else {"dtype": str(model.dtype).removeprefix("torch.")}),
            }
        )
    write_atomically(job.parity, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    if apart:
        job.notes["served_drift"] = sum(apart) / len(apart)


@dataclass(frozen=True)
class Probe:
    """What the saved weights, read again, make of a text.

    | `kind` | `asked`, as a client puts it | `values` |
    |---|---|---|
    | vector | {"input": text} | the vector, after pooling and, where the model has it, normalization |
    | logits | {"input": text} or {"messages": […]} | one for each class, before any activation; a reward is one |
    | score | {"query": text, "document": text} | the one logit of the pair |
    | tokens | {"input": text} | one for each class of each token, before any activation, token by token |

    `token_ids` are what the model saw, those of the pair in one list; `dtype` is what it was computed in.
    """

    kind: Literal["vector", "logits", "score", "tokens"]
    asked: dict[str, Any]
    token_ids: list[int]
    values: list[float]
    dtype: str = "float32"


def write_probes(job: JobDir, probes: Iterable[Probe]) -> None:
    """The first eight probes, of a model that answers with numbers. Raises Diverged for one that is not finite."""
    lines = []
    for probe in islice(probes, PROMPTS):
        if not probe.values or not all(map(math.isfinite, probe.values)):
            raise Diverged("The trained weights give values that are no finite numbers; lower the learning rate.")
        figures = {"token_ids": probe.token_ids, "values": probe.values, "dtype": probe.dtype}
        lines.append({"kind": probe.kind, **probe.asked, **figures})
    write_atomically(job.parity, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


@torch.no_grad()
def greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    token_ids: list[int],
    beside: dict[str, torch.Tensor] | None = None,
) -> tuple[list[int], list[float]]:
    """The most probable next tokens up to the end token, and their log-probabilities; one prompt."""
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=end_ids(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    inputs = torch.tensor([token_ids], device=model.device)
    made = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        generation_config=config,
        return_dict_in_generate=True,
        output_logits=True,
        **{name: given.to(model.device) for name, given in (beside or {}).items()},
    )
    completion = made.sequences[0, len(token_ids) :].tolist()
    logprobs = torch.stack(made.logits)[:, 0].float().log_softmax(-1)
    return completion, [logprobs[i, token].item() for i, token in enumerate(completion)]


@torch.no_grad()
def scored(model: PreTrainedModel, token_ids: list[int], completion: list[int]) -> list[float]:
    """The log-probability of each token of a completion after what stands before it."""
    inputs = torch.tensor([[*token_ids, *completion]], device=model.device)
    logprobs = model(input_ids=inputs).logits[0, len(token_ids) - 1 : -1].float().log_softmax(-1)
    return [logprobs[i, token].item() for i, token in enumerate(completion)]


def end_ids(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer, those of the tokenizer and of the model's generation; there may be none."""
    told = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])} - {None})
