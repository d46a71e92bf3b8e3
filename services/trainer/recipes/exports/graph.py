"""A graph of ONNX: `python -m services.trainer.recipes.exports.graph JOBDIR`.

The graph takes token ids and gives what the version answers with: logits of a causal model or a classifier, vectors of
an embedding model. onnxruntime then computes it on other batches and lengths than it was made with. Knows no service.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import RecipeError
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process("scipy", "sentence_transformers", "sklearn")  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import torch
from onnxruntime import InferenceSession
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from services.trainer.exporting import CAUSAL
from services.trainer.recipes.exports.drift import Columns, Likelihoods, vectors_apart
from services.trainer.recipes.exports.source import (
    ROWS,
    asked,
    check_floats,
    columns,
    held_out,
    load,
    longest,
    source_bytes,
    told_size,
    weight_bytes,
)
from services.trainer.recipes.models.base_model import have_padding

FILE = "model.onnx"
#: What one file of protobuf holds at most, with room for the graph; above, weights lie in a file beside it.
MOST_BYTES = 1 << 30
#: How far the graph may be from torch, as a share of the largest value and, of logits that are small, of 1: four orders
#: above what was measured.
TOLERANCE = 1e-2
LEAST_COSINE = 0.9999


@dataclass
class Traced:
    """What is made a graph: `model` gives a tensor for `names` in their order; `output` is what that is called."""

    tokenizer: PreTrainedTokenizerBase
    model: torch.nn.Module
    config: Any
    output: str
    names: list[str] = field(default_factory=list)

    @torch.no_grad()
    def torch(self, batch: dict[str, Tensor]) -> Tensor:
        """What torch makes of a batch."""
        return self.model(*(batch[name] for name in self.names))


class Logits(torch.nn.Module):
    """A model of transformers, which gives its logits alone."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str], causal: bool) -> None:
        super().__init__()
        self.model, self.names, self.how = model, names, {"use_cache": False} if causal else {}

    def forward(self, *given: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, given, strict=True)), **self.how).logits


class Vectors(torch.nn.Module):
    """A model of sentence-transformers, which gives its vectors alone, pooled and normalized as it is told."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *given: Tensor) -> Tensor:
        return self.model(dict(zip(self.names, given, strict=True)))["sentence_embedding"]


def export(job: JobDir) -> Outcome:
    parameters = asked(job, "onnx").parameters
    recipe = parameters["trained_by"]
    traced, dtype = load_traced(job, recipe)
    positions = longest(traced.tokenizer, traced, sys.maxsize)
    most = longest(traced.tokenizer, traced, parameters.get("max_length"))
    rows = columns(held_out(job), recipe, traced.tokenizer, most, ROWS)
    traced.names = list(rows[0])
    if isinstance(traced.model, Logits | Vectors):
        traced.model.names = traced.names

    job.report("phase", message="converting", step=2, total_steps=4)
    out = job.fresh_out()
    example = padded(traced.tokenizer, rows[:2] * (2 if len(rows) < 2 else 1))
    dimensions = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=positions)}
    size = source_bytes(job)
    torch.onnx.export(
        traced.model,
        tuple(example[name] for name in traced.names),
        out / FILE,
        input_names=traced.names,
        output_names=[traced.output],
        dynamic_shapes=(tuple(dimensions for _ in traced.names),),
        external_data=size > MOST_BYTES,
        dynamo=True,
        verbose=False,
    )
    job.report("phase", message="saving", step=3, total_steps=4)
    traced.tokenizer.save_pretrained(out)
    (out / "config.json").write_text(json.dumps(traced.config.to_dict(), indent=1, default=str), "utf-8")
    job.report("phase", message="measuring", step=4, total_steps=4)
    metrics = told_size(job, dtype, size, weight_bytes(out, ".onnx", ".data"))
    metrics |= checked(traced, out / FILE, rows, recipe in CAUSAL, tuple(example["input_ids"].shape))
    return Outcome("succeeded", metrics, {"kind": "package", "path": "out/model"})


def load_traced(job: JobDir, recipe: str) -> tuple[Traced, str]:
    """The version as a module to be traced, and the dtype of its files. Raises BadInput."""
    if recipe == "embedding":
        from services.trainer.recipes.exports.index import load_encoder

        job.report("phase", message="reading", step=1, total_steps=4)
        encoder = load_encoder(job)
        words = encoder[0]
        words.model.set_attn_implementation("eager")
        module = Vectors(encoder.eval().requires_grad_(False), ())
        return Traced(words.tokenizer, module, words.model.config, "vectors"), check_floats(job.base)
    source = load(job, recipe)
    source.model.set_attn_implementation("eager")  # the others choose a path by the shapes they see
    traced = Logits(source.model, (), recipe in CAUSAL)
    return Traced(source.tokenizer, traced.eval(), source.model.config, "logits"), source.dtype


def padded(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Columns]) -> dict[str, Tensor]:
    """One batch: (rows, tokens of the longest) of each column, padded on the right."""
    have_padding(tokenizer)
    return dict(tokenizer.pad(list(rows), return_tensors="pt", padding_side="right"))


def checked(
    traced: Traced, file: Path, rows: Sequence[Columns], causal: bool, made_with: tuple[int, ...]
) -> dict[str, float]:
    """What onnxruntime makes of batches of 1, 3 and 5 rows beside what torch makes of them: `max_abs_difference`, and
    what that means. Raises RecipeError where the graph is another function.
    """
    session = InferenceSession(file, providers=["CPUExecutionProvider"])

    def computed(batch: dict[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run([traced.output], {name: batch[name].numpy() for name in traced.names})[0])

    pairs, shapes = [], set()
    for size in (1, 3, 5):
        for begin in range(0, min(len(rows), 3 * size), size):
            batch = padded(traced.tokenizer, rows[begin : begin + size])
            shapes.add(tuple(batch["input_ids"].shape))
            theirs, ours = traced.torch(batch), computed(batch)
            if causal:
                there = batch["attention_mask"].bool()
                theirs, ours = theirs[there], ours[there]
            pairs.append((ours, theirs))
    if not shapes - {made_with}:
        raise RecipeError("The rows give no other shape to check the ONNX graph with; add rows of other lengths.")
    metrics = {**apart(pairs, traced.output == "vectors"), "checked_shapes": float(len(shapes))}
    if causal:
        before = Likelihoods.of(lambda row: traced.torch(padded(traced.tokenizer, [row]))[0], rows)
        return metrics | before.drift(Likelihoods.of(lambda row: computed(padded(traced.tokenizer, [row]))[0], rows))
    return metrics


def apart(pairs: Sequence[tuple[Tensor, Tensor]], vectors: bool) -> dict[str, float]:
    """`max_abs_difference` of the values of graph and torch, (rows, …) each, and of vectors their cosines. Raises
    RecipeError where the graph is another function.
    """
    most = max((ours - theirs).abs().max().item() for ours, theirs in pairs)
    largest = max(0.0 if vectors else 1.0, *(theirs.abs().max().item() for _, theirs in pairs))
    found = vectors_apart(*(torch.cat(each) for each in zip(*pairs, strict=True))) if vectors else {}
    least = found.get("vector_cosine_least", 1.0)
    if not all((ours - theirs).isfinite().all() for ours, theirs in pairs):
        most = float("nan")
    if not (most <= TOLERANCE * largest and least >= LEAST_COSINE):
        cosine = f", and vectors of a text have a cosine of {least:.6f} at least" if vectors else ""
        raise RecipeError(
            f"The ONNX graph does not compute what the version does: its values differ by up to {most:.2g}{cosine}. "
            "Export it in another form, and report this with the model's architecture."
        )
    return {"max_abs_difference": most, **found}


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), export))
