"""Which versions can be written in which form, and where that runs; pure, knows neither torch nor a service.

What is asked for is done or refused, never replaced: the trainer looks here when a job is submitted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer.refusals import Refusal, enum_word

#: Recipes whose models answer with tokens.
CAUSAL = ("pretrain", "sft", "dpo", "kto", "orpo", "cpo", "simpo", "ppo", "grpo", "rloo", "gkd")
#: Recipes whose models answer with numbers about a text.
ENCODERS = ("rm", "embedding", "reranker", "sequence_classification")
#: What each form can be made of.
MADE_OF = {
    "merged": CAUSAL,
    "gptq": CAUSAL,
    "awq": CAUSAL,
    "onnx": CAUSAL + ENCODERS,
    "gguf": CAUSAL,
    "faiss": ("embedding",),
}
#: The module below recipes/exports of each form.
MODULES = {"merged": "merge", "gptq": "quantize", "awq": "quantize", "onnx": "graph", "gguf": "llama", "faiss": "index"}
QUANTIZED = ("gptq", "awq")
BITS = {"gptq": (4, 8), "awq": (4, 8), "gguf": (8, 16)}
#: Fields that only some forms take.
ONLY_OF = {
    "bits": tuple(BITS),
    "group_size": QUANTIZED,
    "calibration_rows": QUANTIZED,
    "index": ("faiss",),
}
#: What a job of training is told, and an export is not.
OF_TRAINING = ("optimization", "checkpoint_every_steps", "distribution", "performance")
#: Where `make quantization` puts Python with llmcompressor: beside the environment that this one runs in.
QUANTIZATION_PYTHON = Path(sys.prefix).with_name(".venv-quantization") / "bin" / "python"


@dataclass(frozen=True)
class Asked:
    """What an export asks for: ``spec`` as it stands in JSON, with its tuner, and what is known of its source."""

    spec: Mapping[str, Any]
    tuner: str
    device: str
    adapter: bool
    task_type: str
    held: str = ""
    #: The same of the base of an adapter.
    below: str = ""
    python: Path = QUANTIZATION_PYTHON

    @property
    def own(self) -> Mapping[str, Any]:
        """The fields of the recipe."""
        found: Mapping[str, Any] = self.spec["export"]
        return found

    @property
    def form(self) -> str:
        """`merged`, `gptq`, …"""
        return enum_word(self.own.get("format"), "EXPORT_FORMAT_")

    @property
    def recipe(self) -> str:
        """What trained the source."""
        return str(self.own.get("trained_by", ""))


def command_of(recipe: str, form: str) -> str:
    """The name under which an agent finds what runs a job of this recipe."""
    return f"{recipe}-{form}" if recipe == "export" else recipe


def commands() -> dict[str, Sequence[str]]:
    """The command of each form; the job directory is added."""
    return {
        command_of("export", form): (
            str(QUANTIZATION_PYTHON) if form in QUANTIZED else sys.executable,
            "-m",
            f"services.trainer.recipes.exports.{module}",
        )
        for form, module in MODULES.items()
    }


def refusals(asked: Asked) -> list[Refusal]:
    """Everything that stands in the way, below ``spec``; empty where it can be done."""
    return [Refusal(field, what) for rule in RULES for field, what in rule(asked)]


def _of_training(asked: Asked) -> Iterator[tuple[str, str]]:
    for field in (asked.tuner, *OF_TRAINING):
        if field and asked.spec.get(field):
            yield field, "is given, but an export trains nothing; leave it out"
    if asked.spec.get("precision") and asked.form != "merged":
        yield "precision", f"is given, but {asked.form} has number formats of its own; leave it out"


def _of_form(asked: Asked) -> Iterator[tuple[str, str]]:
    for field, forms in ONLY_OF.items():
        if asked.own.get(field) and asked.form not in forms:
            yield f"export.{field}", f"is given, but {asked.form} has none; leave it out"
    bits = asked.own.get("bits")
    if bits and asked.form in BITS and bits not in BITS[asked.form]:
        yield "export.bits", f"is {bits}, and {asked.form} has {' or '.join(map(str, BITS[asked.form]))}"
    if bits == 8 and asked.form in QUANTIZED and asked.device == "cpu":
        yield "export.bits", "is 8, which vLLM does not serve on CPUs; take 4"


def _of_source(asked: Asked) -> Iterator[tuple[str, str]]:
    if asked.task_type != asked.spec["task_type"]:
        yield "task_type", f"is `{asked.spec['task_type']}`, but the version to export is of `{asked.task_type}`"
    elif asked.recipe not in MADE_OF[asked.form]:
        possible = [form for form, recipes in MADE_OF.items() if asked.recipe in recipes]
        one = "take one of" if len(possible) > 1 else "take"
        words = f"{one} {', '.join(possible)}" if possible else "nothing of it can be exported yet"
        yield "export.format", f"is {asked.form}, which models of `{asked.recipe}` cannot be written as; {words}"
    if asked.held:
        yield "base_model_version", f"holds its weights as {asked.held} already; export the version it was made from"
    elif asked.below:
        yield (
            "base_model_version",
            f"is an adapter on weights that are {asked.below}, into which nothing can be merged; train it on the "
            "version that they were made from: sluice lineage tells it",
        )
    elif asked.form == "merged" and not asked.adapter:
        yield "base_model_version", "is whole weights, with nothing to merge; take it as it is: sluice models pull"


def _of_environment(asked: Asked) -> Iterator[tuple[str, str]]:
    if asked.form in QUANTIZED and not asked.python.is_file():
        yield (
            "export.format",
            f"is {asked.form}, which needs an environment of its own that is not there; make it on the trainer's host: "
            "make quantization",
        )


RULES: tuple[Callable[[Asked], Iterator[tuple[str, str]]], ...] = (_of_training, _of_form, _of_source, _of_environment)
