"""Weights of few bits, by GPTQ or AWQ: `python -m services.trainer.recipes.exports.quantize JOBDIR`.

llmcompressor does it, whose packages are not those of the engines, so this runs in an environment of its own
(`make quantization`) and imports nothing that is not there. Knows no service.
"""

import os
import sys
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
os.environ["LLM_COMPRESSOR_LOG_LEVEL"] = "ERROR"  # else a dozen lines a layer
# ruff: noqa: E402

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from transformers import PreTrainedModel, set_seed

from services.trainer.recipes.exports.drift import Likelihoods, logits_of
from services.trainer.recipes.exports.source import ROWS, asked, columns, held_out, load, longest
from services.trainer.recipes.exports.weights import copy_beside, finish
from services.trainer.recipes.models.stored import SERVED_IN
from services.trainer.refusals import enum_word

GROUP_SIZES = (128, 64, 32)
CALIBRATION_ROWS = 128
HEAD = "lm_head"


def export(job: JobDir) -> Outcome:
    spec = asked(job, "gptq", "awq")
    parameters, recipe = spec.parameters, spec.parameters["trained_by"]
    set_seed(spec.seed)
    source = load(job, recipe)
    most = longest(source.tokenizer, source.model, parameters.get("max_length"))
    rows = columns(held_out(job), recipe, source.tokenizer, most, ROWS)
    seen = columns(
        job.train_rows, recipe, source.tokenizer, most, parameters.get("calibration_rows") or CALIBRATION_ROWS
    )
    before = Likelihoods.of(logits_of(source.model), rows)
    word, bits = enum_word(parameters["format"], "EXPORT_FORMAT_"), parameters.get("bits") or 4
    size = group_size(source.model, parameters.get("group_size") or 0)
    job.notes["quantization"] = f"{word} int{bits} in groups of {size}"
    job.settings.update({"bits": bits, "group_size": size, "calibration_rows": len(seen), "max_length": most})

    job.report("phase", message="quantizing", step=2, total_steps=4)
    if not torch.accelerator.is_available():
        # llmcompressor 0.14 pins what it caches, which torch can do for an accelerator only; here nothing is to be won.
        torch.Tensor.pin_memory = lambda tensor, *_, **__: tensor
    cache = source.model.config.use_cache
    oneshot(
        model=source.model,
        dataset=Dataset.from_list([{name: row[name] for name in ("input_ids", "attention_mask")} for row in seen]),
        recipe=modifiers(word, bits, size),
        max_seq_length=most,
        num_calibration_samples=len(seen),
    )
    source.model.config.use_cache = cache  # which it turns off
    job.report("phase", message="saving", step=3, total_steps=4)
    source.model.save_pretrained(job.fresh_out(), save_compressed=True)
    (job.out_model / "recipe.yaml").unlink(missing_ok=True)  # what result.json says, and no file of a model
    source.tokenizer.save_pretrained(job.out_model)
    copy_beside(job)
    return finish(job, recipe, source, before, rows, SERVED_IN, most)


def modifiers(word: str, bits: int, size: int) -> list[Any]:
    """What llmcompressor shall do: symmetric integers for GPTQ, with a zero point for AWQ, as both papers have it."""
    weights = QuantizationArgs(num_bits=bits, type="int", symmetric=word == "gptq", strategy="group", group_size=size)
    how = {"config_groups": {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}, "ignore": [HEAD]}
    return [GPTQModifier(**how)] if word == "gptq" else [AWQModifier(), QuantizationModifier(**how)]


def group_size(model: PreTrainedModel, wanted: int) -> int:
    """How many weights share a scale: what is asked for, else the largest known size that divides the inputs of every
    layer. Raises BadInput where none does.
    """
    inputs = {
        module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith(HEAD)
    }
    fitting = [size for size in GROUP_SIZES if all(each % size == 0 for each in inputs)]
    if wanted and wanted not in fitting:
        one = next(each for each in sorted(inputs) if each % wanted)
        raise BadInput(f"group_size {wanted} does not divide the {one} inputs of a layer; leave it out.")
    if not fitting:
        raise BadInput(
            f"No group size of {', '.join(map(str, GROUP_SIZES))} divides the inputs of every layer, "
            f"{', '.join(map(str, sorted(inputs)))}; this model cannot be held in so few bits."
        )
    return wanted or fitting[0]


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), export))
