"""What one step of a job works on, from its spec with the recipes' defaults; knows no memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from services.trainer.plan.architecture import Head, UnplannableError
from services.trainer.refusals import BFLOAT16, Asked, enum_word

#: Above this many weights recipes compute activations twice instead of keeping them; as in recipes/optimization.py.
CHECKPOINT_ACTIVATIONS_ABOVE = 100_000_000
#: How weights, gradients and the optimizer's state lie on several devices: whole on each, or in shares (Rajbhandari et
#: al. 2020, arXiv:1910.02054); FSDP's full shards are those of ZeRO-3 (Zhao et al. 2023, arXiv:2304.11277).
Sharding = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp"]


@dataclass(frozen=True)
class Method:
    """What a recipe has in memory and where it says nothing: defaults as in recipes/*.py, which a test compares."""

    batch_size: int
    max_length: int
    epochs: float = 3.0
    #: Texts that one row becomes.
    texts: int = 1
    head: Head = "tokens"
    #: Whether a second model stands beside the one whose weights are all trained.
    reference: bool = False
    #: Other texts of a row that `negatives` adds, where the spec does not tell how many.
    negatives: int = 0


METHODS = {
    "pretrain": Method(16, 64, epochs=5.0),
    "sft": Method(32, 512),
    "dpo": Method(16, 512, texts=2, reference=True),
    "kto": Method(16, 512, texts=2, reference=True),
    "orpo": Method(16, 512, texts=2),
    "cpo": Method(16, 512, texts=2),
    "simpo": Method(16, 512, texts=2),
    "rm": Method(16, 512, epochs=1.0, texts=2, head="classes"),
    "embedding": Method(64, 512, texts=2, head="none", negatives=4),
    "reranker": Method(32, 512, epochs=1.0, head="classes", negatives=4),
    "sequence_classification": Method(32, 512, head="classes"),
}


@dataclass(frozen=True)
class Work:
    """A job as the planner sees it; lengths in tokens, ``batch_size`` in rows of one step on one device."""

    asked: Asked
    method: Method
    batch_size: int
    max_length: int
    accumulation: int
    max_steps: int
    epochs: float
    texts: int
    classes: int
    bfloat16: bool
    checkpointing: bool | None = None
    #: Rows whose activations are held together, where a recipe takes a batch in parts; 0: all.
    at_once: int = 0

    @property
    def held_rows(self) -> int:
        """Rows whose activations are held together."""
        return min(self.batch_size, self.at_once or self.batch_size)

    @property
    def tokens(self) -> int:
        """Of one step on one device, every row as long as it may be."""
        return self.batch_size * self.texts * self.max_length

    @property
    def reference(self) -> bool:
        """Whether another whole model is held beside the trained one."""
        return self.method.reference and self.asked.tuner == "full"

    def checkpoints_activations(self, parameters: int) -> bool:
        """What is asked for, or what the recipes do with so many weights."""
        if self.checkpointing is None:
            return parameters > CHECKPOINT_ACTIVATIONS_ABOVE
        return self.checkpointing

    def updates(self, rows: int, devices: int) -> int:
        """Updates in all, for so many rows."""
        each = self.batch_size * self.accumulation * devices
        return self.max_steps or max(1, -(-int(rows * self.epochs) // each))

    def with_optimization(self, **values: Any) -> Work:
        """The same with other settings of the optimization."""
        return replace(self, asked=replace(self.asked, optimization={**self.asked.optimization, **values}))


def work_of(parameters: Mapping[str, Any], recipe: str, device: str, checkpointing: bool | None = None) -> Work:
    """The job of a spec as it stands in JSON. ``device`` is as torch names it. Raises UnplannableError."""
    if recipe not in METHODS:
        raise UnplannableError(
            "recipe", f"is `{recipe}`, which the planner does not know; it knows {', '.join(METHODS)}"
        )
    method, own = METHODS[recipe], parameters.get(recipe) or {}
    asked = Asked.of(parameters, recipe, device)
    told = asked.optimization
    precision = enum_word(parameters.get("precision"), "PRECISION_")
    if device == "cpu" and precision == "bfloat16":
        raise UnplannableError("precision", "is bfloat16; on a CPU the planner knows float32 alone")
    names = own.get("label_names") or ()
    return Work(
        asked=asked,
        method=method,
        batch_size=int(told.get("batch_size") or method.batch_size),
        max_length=int(parameters.get("max_length") or method.max_length),
        accumulation=int(told.get("gradient_accumulation_steps") or 1),
        max_steps=int(told.get("max_steps") or 0),
        epochs=float(told.get("epochs") or method.epochs),
        texts=method.texts + int(own.get("negatives") or method.negatives),
        classes=(len(names) or 2) if recipe == "sequence_classification" else 1,
        bfloat16=precision == "bfloat16" or (not precision and device in BFLOAT16),
        checkpointing=asked.performance.gradient_checkpointing if checkpointing is None else checkpointing,
        at_once=int(own.get("mini_batch_size") or 0),
    )


def shape_config(shape: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model that `pretrain` makes anew; defaults as in recipes/fresh_model.py, of the contract."""
    width, heads = int(shape.get("hidden_size") or 192), int(shape.get("heads") or 4)
    return {
        "model_type": "qwen3",
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": int(shape.get("layers") or 2),
        "num_attention_heads": heads,
        "num_key_value_heads": int(shape.get("kv_heads") or (0 if shape else 2)) or heads,
        "head_dim": width // heads,
        "vocab_size": int(shape.get("vocab_size") or 2048),
        "max_position_embeddings": int(shape.get("max_position_embeddings") or 512),
        "tie_word_embeddings": True,
    }
