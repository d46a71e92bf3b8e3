"""What a job asks of its tuner and optimizer that cannot be done, and what to ask for instead.

What is asked for is done or refused, never replaced. The trainer looks here when a job is submitted, a recipe once
more when it has found its hardware. Pure: knows neither torch nor a service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.trainer import performance, reinforcement
from services.trainer.distribution import Distribution, wrong
from services.trainer.performance import Performance
from sluice.fewbits import UNREAD

#: What recipes compute on, as torch names it.
DEVICES = ("cpu", "cuda", "xpu", "npu", "mps")
#: The same by the names of makers and processors, which the field's `DEVICE_TYPE` takes.
MADE_BY = {"nvidia": "cuda", "amd": "cuda", "intel": "xpu", "ascend": "npu", "apple": "mps"}
MADE_BY |= dict.fromkeys(("arm", "arm64", "aarch64", "x86", "x86_64"), "cpu")
#: Devices that compute in bfloat16 where a job does not say its precision.
BFLOAT16 = ("cuda", "xpu", "npu")
TUNERS = ("full", "lora", "adalora", "vera", "oft", "ia3")
#: AdaLoRA warms up, takes ranks away and settles; with fewer updates a phase would be empty.
LEAST_ADALORA_STEPS = 10
DEFAULT_ADALORA_RANK = 8
#: Recipes that train all weights where no tuner is named: models made anew, or small ones.
ALL_WEIGHTS = ("pretrain", "embedding", "reranker", "sequence_classification", "token_classification")
WITH_REFERENCE = ("dpo", "kto", "ppo", "grpo", "rloo")
#: Recipes that can hold their base in fewer bits; the others would not, whatever the spec says.
QUANTIZING = ("sft", "dpo", "kto", "orpo", "cpo", "simpo", "gkd")
#: Kinds of LoRA that an engine serves beside a base as it is; others are merged into it.
SERVED_BESIDE = ("", "rslora", "lora_plus")
#: Kinds of LoRA that take a part of the base's weights into the adapter before the first step.
MOVES_WEIGHTS = ("pissa", "olora")
WITHOUT_MOMENTS_OF_ADAPTERS = ("galore", "apollo", "lomo")
#: What to start from where a base's files hold weights in bits that no recipe reads.
READ = "take a version that `sluice models export` made as gptq or awq, or one of floats"
#: bitsandbytes 0.50 has its kernels for CPUs, CUDA and Intel's GPUs.
BITSANDBYTES = ("cpu", "cuda", "xpu")


def enum_word(value: object, prefix: str) -> str:
    """`SCHEDULE_COSINE` and `cosine` are both cosine; unspecified is the empty word."""
    word = str(value or "").removeprefix(prefix).lower()
    return "" if word == "unspecified" else word


def device_told(environ: Mapping[str, str]) -> str:
    """What ``SLUICE_DEVICE_TYPE``, else ``DEVICE_TYPE``, names, as torch does; empty where neither is set.

    Raises ValueError naming the variable that is wrong and what it takes.
    """
    for variable in ("SLUICE_DEVICE_TYPE", "DEVICE_TYPE"):
        if said := environ.get(variable, "").strip().lower():
            if (device := MADE_BY.get(said, said)) not in DEVICES:
                words = ", ".join((*DEVICES, *MADE_BY))
                raise ValueError(f"{variable} is `{environ[variable]}`; it takes one of {words}")
            return device
    return ""


@dataclass(frozen=True)
class Asked:
    """What a spec asks for: ``settings`` are those of the tuner, ``optimization`` those that every recipe has."""

    recipe: str
    tuner: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    optimization: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    #: How many of the kind ``device`` a job may have, 0 where that is not known.
    devices: int = 0
    distribution: Distribution = field(default_factory=Distribution)
    #: The fields of the recipe's own message, and in a recipe's process those of the whole spec.
    own: Mapping[str, Any] = field(default_factory=dict)
    performance: Performance = field(default_factory=Performance)
    #: How the base's files hold its weights where that is in few bits, as lineage tells it; empty for floats.
    held: str = ""

    @classmethod
    def of(
        cls, parameters: Mapping[str, Any], recipe: str = "", device: str = "", devices: int = 0, held: str = ""
    ) -> Asked:
        """Reads the fields of a spec as they stand in JSON; without a tuner it is LoRA, in ALL_WEIGHTS all weights."""
        default = "full" if recipe in ALL_WEIGHTS else "lora"
        tuner = next((name for name in TUNERS if name in parameters), default)
        told = (parameters.get(tuner) or {}, parameters.get("optimization") or {})
        own = nested if isinstance(nested := parameters.get(recipe), Mapping) else parameters
        distribution, speed = Distribution.of(parameters), Performance.of(parameters)
        return cls(recipe, tuner, *told, device, devices, distribution, own, speed, held)

    @property
    def variant(self) -> str:
        """The kind of LoRA; empty for the plain one."""
        return enum_word(self.settings.get("variant"), "LORA_VARIANT_")

    @property
    def quantization(self) -> str:
        """How the frozen base is held: nf4, int8, or empty for floats."""
        return enum_word(self.settings.get("quantization"), "QUANTIZATION_")

    @property
    def optimizer(self) -> str:
        """The optimizer; `adamw` where none is named."""
        return enum_word(self.optimization.get("optimizer"), "OPTIMIZER_") or "adamw"

    def of_tuner(self, name: str) -> float:
        """A number of the tuner, 0 where it is not told."""
        return float(self.settings.get(name) or 0)

    def of_optimization(self, name: str) -> float:
        """A number of the optimization, 0 where it is not told."""
        return float(self.optimization.get(name) or 0)


@dataclass(frozen=True)
class Refusal:
    """The field below ``spec`` that asks too much, and what it asks, why not, and what to do instead."""

    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.field} {self.what}."


@dataclass(frozen=True)
class Rule:
    """``what`` may name the properties of what was asked, in braces."""

    field: str
    breaks: Callable[[Asked], bool]
    what: str


RULES = (
    Rule(
        "optimization.optimizer",
        lambda a: a.optimizer == "paged_adamw_8bit" and a.device != "cuda",
        "is paged_adamw_8bit, which pages its moments out of the memory of an NVIDIA GPU, and the pool computes on "
        "{device}; take adamw_8bit",
    ),
    Rule(
        "optimization.optimizer",
        lambda a: a.optimizer == "q_galore",
        "is q_galore, whose library (q-galore-torch 1.0) asks for a setting that bitsandbytes 0.50 has no more, so it "
        "fails at its first update; take galore, or adamw_8bit",
    ),
    Rule(
        "optimization.optimizer",
        lambda a: a.optimizer == "adamw_8bit" and a.device not in BITSANDBYTES,
        "is adamw_8bit, for which there is no library on {device}; take adamw or adafactor",
    ),
    Rule(
        "optimization.optimizer",
        lambda a: a.optimizer in WITHOUT_MOMENTS_OF_ADAPTERS and a.tuner != "full",
        "is {optimizer}, which saves memory where all weights are trained, and the tuner is {tuner}; "
        "take the tuner full, or the optimizer adamw",
    ),
    Rule(
        "optimization.gradient_accumulation_steps",
        lambda a: a.optimizer == "lomo" and a.of_optimization("gradient_accumulation_steps") > 1,
        "is more than 1, but lomo updates weights while gradients are made and keeps none to add up; "
        "leave it out, or take another optimizer",
    ),
    Rule(
        "optimization.max_grad_norm",
        lambda a: a.optimizer == "lomo" and a.of_optimization("max_grad_norm") > 0,
        "is given, but lomo has spent each gradient before the norm of all is known; "
        "set it to 0 or leave it out, or take another optimizer",
    ),
    Rule(
        "optimization.weight_decay",
        lambda a: a.optimizer == "lomo" and a.of_optimization("weight_decay") > 0,
        "is given, but lomo decays no weights; leave it out, or take another optimizer",
    ),
    Rule(
        "{tuner}",
        lambda a: a.recipe == "pretrain" and a.tuner != "full",
        "is an adapter, and pretrain trains all weights; leave the tuner out, or take the task type sft",
    ),
    Rule(
        "adalora",
        lambda a: a.tuner == "adalora" and a.recipe not in ("", "pretrain", "sft"),
        "is asked for, but peft adds its regularizer to the loss that a language model computes itself, and "
        "{recipe} has a loss of its own; take lora",
    ),
    Rule(
        "lora.learning_rate_ratio",
        lambda a: a.variant != "lora_plus" and a.of_tuner("learning_rate_ratio") > 0,
        "is given, but only the variant lora_plus has two learning rates; leave it out, or take that variant",
    ),
    Rule(
        "optimization.optimizer",
        lambda a: a.variant == "lora_plus" and a.optimizer == "adafactor",
        "is adafactor, but the ratio of the learning rates of lora_plus is one of AdamW; take adamw or adamw_8bit",
    ),
    Rule(
        "lora.quantization",
        lambda a: bool(a.quantization) and a.variant in MOVES_WEIGHTS,
        "is {quantization}, but {variant} begins by taking a part out of the base's weights, which quantized ones do "
        "not give exactly; leave quantization out, or take another variant",
    ),
    Rule(
        "lora.quantization",
        lambda a: bool(a.quantization) and a.device not in BITSANDBYTES,
        "is {quantization}, for which there is no library on {device}; leave it out",
    ),
    Rule(
        "lora.quantization",
        lambda a: bool(a.quantization) and bool(a.recipe) and a.recipe not in QUANTIZING,
        "is {quantization}, but {recipe} holds its base in floats; leave it out",
    ),
    Rule(
        "lora.dropout",
        lambda a: a.variant in MOVES_WEIGHTS and a.of_tuner("dropout") > 0,
        "is given, but with {variant} it would drop the part of the base that the adapter began with; "
        "leave it out, or take another variant",
    ),
    Rule(
        "lora.variant",
        lambda a: a.variant in MOVES_WEIGHTS and a.recipe in WITH_REFERENCE,
        "is {variant}, which takes a part out of the base's weights, and {recipe} needs the base whole as its "
        "reference; take lora, rslora, dora or lora_plus",
    ),
    Rule(
        "adalora.initial_rank",
        lambda a: (
            a.tuner == "adalora" and 0 < a.of_tuner("initial_rank") <= (a.of_tuner("rank") or DEFAULT_ADALORA_RANK)
        ),
        f"is not above the rank at the end ({DEFAULT_ADALORA_RANK} where none is given), so no rank could be taken "
        "away; raise it, or take lora",
    ),
    Rule(
        "optimization.max_steps",
        lambda a: a.tuner == "adalora" and 0 < a.of_optimization("max_steps") < LEAST_ADALORA_STEPS,
        f"is below {LEAST_ADALORA_STEPS}, the least in which adalora can give out its rank; raise it, or take lora",
    ),
)
#: What cannot be done with a base whose files hold its weights in few bits.
RULES_OF_FEW_BITS = (
    Rule(
        "base_model_version",
        lambda a: a.held.endswith(UNREAD),
        "holds its weights in {held}; " + READ,
    ),
    Rule(
        "base_model_version",
        lambda a: a.recipe not in ("", *QUANTIZING),
        "holds its weights as {held}, and {recipe} computes on a base of floats; take the version that it was made "
        "from: sluice lineage tells it",
    ),
    Rule(
        "full",
        lambda a: a.tuner == "full",
        "trains all weights, and those of the base, {held}, cannot change a little; take lora, or the version that it "
        "was made from: sluice lineage tells it",
    ),
    Rule(
        "{tuner}",
        lambda a: a.tuner not in ("full", "lora"),
        "is merged into its base to be served, and nothing can be merged into weights that are {held}; take lora",
    ),
    Rule(
        "lora.variant",
        lambda a: a.variant not in SERVED_BESIDE,
        "is {variant}, which is merged into its base to be served, and nothing can be merged into weights that are "
        "{held}; take rslora or lora_plus, or leave it out",
    ),
    Rule(
        "lora.quantization",
        lambda a: bool(a.quantization),
        "is {quantization}, but the base's weights are {held} already; leave it out",
    ),
    Rule(
        "distribution.devices",
        lambda a: a.distribution.devices > 1,
        "is more than 1, but on several devices the base is held in floats, and its weights are {held}; leave "
        "distribution out",
    ),
    Rule(
        "performance.torch_compile",
        lambda a: a.performance.torch_compile,
        "is asked for, but weights that are {held} are unpacked in every step by code that is not compiled; "
        "leave it out",
    ),
)


def refusals(asked: Asked) -> list[Refusal]:
    """Everything that stands in the way, the first rule's first; empty where it can be done."""
    about = {
        name: getattr(asked, name)
        for name in ("recipe", "tuner", "variant", "quantization", "optimizer", "device", "held")
    }
    rules = (*RULES, *RULES_OF_FEW_BITS) if asked.held else RULES
    found = [Refusal(rule.field.format(**about), rule.what.format(**about)) for rule in rules if rule.breaks(asked)]
    more = (*wrong(asked), *performance.wrong(asked), *reinforcement.wrong(asked))
    return found + [Refusal(field, what) for field, what in more]
