"""A causal model's weights written as an engine serves them, and proof of what those answer; knows no format."""

import shutil
from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from services.trainer.recipes.data.conversations import prompt_ids
from services.trainer.recipes.data.rows import read_texts
from services.trainer.recipes.exports.drift import FEW_BITS, MERGED, Likelihoods, judged, logits_of
from services.trainer.recipes.exports.source import Columns, Source, conversations, held_out, told_size, weight_bytes
from services.trainer.recipes.job.jobdir import JobDir, Outcome
from services.trainer.recipes.learning.parity import NEW_TOKENS, PROMPTS, Prompt, write_parity

#: Files beside the weights that a model may come with and that a tokenizer does not write, such as a processor's.
BESIDE = (".json", ".jinja", ".txt", ".model")
INDEX = "model.safetensors.index.json"


def copy_beside(job: JobDir) -> None:
    """Takes over what the base comes with and the export did not write."""
    for file in sorted(job.base.iterdir()):
        target = job.out_model / file.name
        if file.is_file() and file.suffix in BESIDE and file.name != INDEX and not target.exists():
            shutil.copyfile(file, target)


def finish(
    job: JobDir, recipe: str, source: Source, before: Likelihoods, rows: Sequence[Columns], dtype: str, longest: int
) -> Outcome:
    """Reads the files again, measures how far they are from the source, and leaves what they answer for the engine that
    will serve them in `dtype`. Raises RecipeError where they are another model.
    """
    job.report("phase", message="measuring", step=4, total_steps=4)
    found = read_again(job, "float32")
    few = getattr(found.config, "quantization_config", None) is not None
    metrics = {
        **told_size(job, source.dtype, source.size, weight_bytes(job.out_model)),
        **judged(before.drift(Likelihoods.of(logits_of(found), rows)), FEW_BITS if few else MERGED[dtype]),
    }
    served = found if dtype == "float32" else read_again(job, dtype)
    write_parity(job, served, source.tokenizer, prompts(job, recipe, source.tokenizer, longest))
    return Outcome("succeeded", metrics, {"kind": "full", "path": "out/model"})


def read_again(job: JobDir, dtype: str) -> PreTrainedModel:
    """The files of the export, computed in `dtype`."""
    return AutoModelForCausalLM.from_pretrained(
        job.out_model, dtype=getattr(torch, dtype), trust_remote_code=False
    ).eval()


def prompts(job: JobDir, recipe: str, tokenizer: PreTrainedTokenizerBase, longest: int) -> list[Prompt]:
    """What is asked in the first held-out rows, where it leaves room for an answer."""
    path = held_out(job)
    if recipe == "pretrain":
        made = [_beginning(tokenizer, text) for text in read_texts(path)[: 8 * PROMPTS]]
    else:
        asked = [messages[:-1] for messages in conversations(path, recipe)[: 8 * PROMPTS] if len(messages) > 1]
        made = [Prompt({"messages": messages}, prompt_ids(tokenizer, messages)) for messages in asked]
    return [prompt for prompt in made if prompt.token_ids and len(prompt.token_ids) + NEW_TOKENS <= longest][:PROMPTS]


def _beginning(tokenizer: PreTrainedTokenizerBase, text: str) -> Prompt:
    words = text[: max(1, min(len(text) // 2, 200))]
    return Prompt({"prompt": words}, tokenizer.encode(words))
