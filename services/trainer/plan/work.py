"""What one step of a job works on, from its spec with the recipes' defaults; knows no memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from services.trainer import reinforcement
from services.trainer.plan.architecture import Architecture, Head
from services.trainer.plan.fields import UnplannableError
from services.trainer.plan.losses import Loss
from services.trainer.refusals import BFLOAT16, Asked, enum_word

#: Above this many weights recipes compute activations twice instead of keeping them; as in `learning.optimization`.
CHECKPOINT_ACTIVATIONS_ABOVE = 100_000_000
#: How weights, gradients and the optimizer's state lie on several devices: whole on each, or in shares (Rajbhandari et
#: al. 2020, arXiv:1910.02054); FSDP's full shards are those of ZeRO-3 (Zhao et al. 2023, arXiv:2304.11277).
Sharding = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp"]


#: How a method compares with the base: `asked` needs no place, as an adapter is switched off for it or each row was
#: asked about before training; `held` is a second model beside one whose weights are all trained.
Reference = Literal["none", "asked", "held"]


@dataclass(frozen=True)
class Method:
    """What a recipe has in memory and where it says nothing: defaults as in recipes/*.py, which a test compares."""

    batch_size: int
    max_length: int
    epochs: float = 3.0
    #: Texts that one row becomes, whose activations are kept.
    texts: int = 1
    head: Head = "tokens"
    loss: Loss = "none"
    reference: Reference = "none"
    #: Other texts of a row that `negatives` adds, where the spec does not tell how many.
    negatives: int = 0
    #: The longest answer that the model itself draws to a row, in tokens, where the spec does not tell; 0: none.
    new_tokens: int = 0
    #: Passes forward over all tokens beside the trained one's own, without the drawing of answers.
    more_passes: int = 0


METHODS = {
    "pretrain": Method(16, 64, epochs=5.0, loss="chunks"),
    "sft": Method(32, 512, loss="chunks"),
    "dpo": Method(16, 512, texts=2, loss="tiles", reference="asked", more_passes=1),
    "kto": Method(16, 512, loss="tiles", reference="asked", more_passes=3),  # two rows more, and the reference on both
    "orpo": Method(16, 512, texts=2, loss="pairs"),
    "cpo": Method(16, 512, texts=2, loss="pairs"),
    "simpo": Method(16, 512, texts=2, loss="pairs"),
    "rm": Method(16, 512, epochs=1.0, texts=2, head="classes"),
    "ppo": Method(32, 512, epochs=1.0, loss="proximal", reference="held", new_tokens=64, more_passes=2),
    "grpo": Method(32, 512, epochs=1.0, loss="tiles", reference="held", new_tokens=64, more_passes=1),
    "rloo": Method(32, 512, epochs=1.0, loss="tiles", reference="held", new_tokens=64, more_passes=2),
    "gkd": Method(32, 512, loss="divergence", new_tokens=128),
    "embedding": Method(64, 512, texts=2, head="none", negatives=4),
    "reranker": Method(32, 512, epochs=1.0, head="classes", negatives=4),
    "sequence_classification": Method(32, 512, head="classes"),
    "token_classification": Method(32, 512, head="tags"),
    "vision": Method(8, 2048, loss="own"),
    "fusion": Method(8, 2048, head="classes"),
}
#: What is not planned, and why.
UNKNOWN = {
    "export": "it trains nothing, and what it takes depends on the form",
    "audio": "how many tokens a sound takes is for the base's processor to say",
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
    #: The longest answer that is drawn, and the answers that are drawn together.
    new_tokens: int = 0
    #: The frozen models that are read beside the base, by what each is for.
    beside: Mapping[str, Architecture] = field(default_factory=dict)

    @property
    def held_rows(self) -> int:
        """Rows whose activations are held together."""
        return min(self.batch_size, self.at_once or self.batch_size)

    @property
    def tokens(self) -> int:
        """Of one step on one device, every row as long as it may be."""
        return self.batch_size * self.texts * self.max_length

    @property
    def held_tokens(self) -> int:
        """Those whose activations are held together; of rows that several devices share, the part of one."""
        return -(-self.held_rows * self.texts * self.max_length // self.asked.distribution.sequence)

    @property
    def drawn_rows(self) -> int:
        """Answers that are drawn together: those of a whole update."""
        return self.batch_size * self.accumulation if self.new_tokens else 0

    @property
    def reference(self) -> bool:
        """Whether another whole model is held beside the trained one."""
        return self.method.reference == "held" and self.asked.tuner == "full"

    @property
    def on_cpu(self) -> bool:
        """Whether it is computed there."""
        return self.asked.device == "cpu"

    @property
    def joined(self) -> bool:
        """Whether rows lie in one sequence without padding; as in recipes/learning/performance.py."""
        told = self.asked.performance
        if told.packing or told.padding_free or told.padding_free is False:
            return bool(told.packing or told.padding_free)
        return self.asked.recipe == "sft" and self.on_cpu and self.asked.distribution.devices == 1

    def loss(self, sharding: Sharding = "single") -> Loss:
        """How the loss is computed; as in recipes/learning/token_loss.py where it is that one's."""
        if self.method.loss == "chunks" and self.asked.tuner == "adalora":
            return "own"
        if self.method.loss == "chunks" and sharding in ("zero3", "fsdp"):
            return "tiles"  # no device has the head's matrix as a whole
        return self.method.loss

    def checkpoints_activations(self, parameters: int) -> bool:
        """What is asked for, or what the recipes do with so many weights."""
        if self.checkpointing is None:
            return parameters > CHECKPOINT_ACTIVATIONS_ABOVE
        return self.checkpointing

    def updates(self, rows: int, devices: int) -> int:
        """Updates in all, for so many rows."""
        each = self.batch_size * self.accumulation * max(1, devices // self.asked.distribution.sequence)
        return self.max_steps or max(1, -(-int(rows * self.repeats * self.epochs) // each))

    @property
    def repeats(self) -> int:
        """How often a step takes a row: answers to a prompt, and steps on the same answers."""
        own, recipe = self.asked.own, self.asked.recipe
        if recipe not in reinforcement.RECIPES:
            return 1
        group = int(own.get("group_size") or reinforcement.GROUP_SIZES.get(recipe, 1))
        return group * int(own.get("updates_per_rollout") or (4 if recipe == "ppo" else 1))

    def with_optimization(self, **values: Any) -> Work:
        """The same with other settings of the optimization."""
        return replace(self, asked=replace(self.asked, optimization={**self.asked.optimization, **values}))


def work_of(parameters: Mapping[str, Any], recipe: str, device: str, checkpointing: bool | None = None) -> Work:
    """The job of a spec as it stands in JSON. ``device`` is as torch names it. Raises UnplannableError."""
    if recipe not in METHODS:
        why = UNKNOWN.get(recipe, f"the planner knows {', '.join(METHODS)}")
        raise UnplannableError("recipe", f"is `{recipe}`, which cannot be planned: {why}")
    method, own = METHODS[recipe], parameters.get(recipe) or {}
    asked = Asked.of(parameters, recipe, device)
    told = asked.optimization
    precision = enum_word(parameters.get("precision"), "PRECISION_")
    if device == "cpu" and precision == "bfloat16":
        raise UnplannableError("precision", "is bfloat16; on a CPU the planner knows float32 alone")
    return Work(
        asked=asked,
        method=method,
        batch_size=int(told.get("batch_size") or method.batch_size),
        max_length=int(parameters.get("max_length") or method.max_length),
        accumulation=int(told.get("gradient_accumulation_steps") or 1),
        max_steps=int(told.get("max_steps") or 0),
        epochs=float(told.get("epochs") or method.epochs),
        texts=method.texts + int(own.get("negatives") or method.negatives),
        classes=_classes(recipe, len(own.get("label_names") or ())),
        bfloat16=precision == "bfloat16" or (not precision and device in BFLOAT16),
        checkpointing=asked.performance.gradient_checkpointing if checkpointing is None else checkpointing,
        at_once=int(own.get("mini_batch_size") or 0),
        new_tokens=int(own.get("max_new_tokens") or method.new_tokens),
    )


def _classes(recipe: str, names: int) -> int:
    """Values on top: one for each name, of spans one where they begin, one within, and one for none."""
    if recipe == "token_classification":
        return 2 * (names or 2) + 1
    return (names or 2) if recipe in ("sequence_classification", "fusion") else 1


def shape_config(shape: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a model that `pretrain` makes anew; defaults as in `models.fresh_model`, of the contract."""
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
