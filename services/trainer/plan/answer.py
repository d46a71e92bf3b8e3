"""A plan as the contract has it, from a config.json and a spec; it asks nobody and reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from services.trainer.plan.adapters import trained
from services.trainer.plan.advice import Fit, fits, is_trained_so, one_change
from services.trainer.plan.architecture import Architecture, architecture
from services.trainer.plan.devices import Device
from services.trainer.plan.effort import disk, flops
from services.trainer.plan.fields import UnplannableError
from services.trainer.plan.memory import IMPORTS, Memory, host_memory, memory
from services.trainer.plan.work import Sharding, Work, work_of
from sluice.trainer import v1 as trainer

SHARDINGS: dict[trainer.Sharding, Sharding] = {
    trainer.SHARDING_DDP: "ddp",
    trainer.SHARDING_ZERO1: "zero1",
    trainer.SHARDING_ZERO2: "zero2",
    trainer.SHARDING_ZERO3: "zero3",
    trainer.SHARDING_FSDP: "fsdp",
}
MEASURED = (
    "The memory of a CPU is counted on the tensors that torch keeps, and on what lies free in the heap, of which the "
    "share was measured with full and LoRA training of Qwen3 and Llama models, and of BERT."
)
COMPUTED = (
    "The memory of an accelerator is arithmetic over what torch keeps, not measured; "
    "the driver and lost blocks have 8 % of the device for themselves."
)
MEASURED_RECIPES = ("pretrain", "sft", "grpo", "gkd", "token_classification")
UNPROVEN = "{} was not among the measured; its part of the figure is arithmetic alone."


@dataclass(frozen=True)
class Place:
    """What a job is planned for, and how fast that is said to be; 0 where nobody has said."""

    device: Device
    devices: int = 1
    sharding: Sharding = "single"
    tokens_per_s: float = 0.0
    tflops: float = 0.0


def plan(
    config: Mapping[str, Any],
    spec: Mapping[str, Any],
    recipe: str,
    place: Place,
    *,
    rows: int = 0,
    staged_bytes: int = 0,
    checkpointing: bool | None = None,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> trainer.TrainingPlan:
    """What the job takes: ``spec`` as it stands in JSON, ``rows`` of its split `train`, ``staged_bytes`` of its models,
    ``beside`` the config.json of each that it reads beside its base, by what it is for.

    Raises UnplannableError naming what of the model, the recipe or the place is not known.
    """
    if (place.sharding == "single") != (place.devices == 1):
        raise UnplannableError("sharding", "and devices go together: name both, or neither for one device")
    work = work_of(spec, recipe, place.device.kind, checkpointing)
    model = architecture(config, work.method.head, work.classes)
    others = {role: _other(role, told) for role, told in (beside or {}).items()}
    work = replace(work, max_length=min(work.max_length, model.positions or work.max_length), beside=others)
    trainable = trained(model, work.asked)
    held = memory(model, work, place.sharding, place.devices)
    found = trainer.TrainingPlan(
        architecture=model.kind,
        parameters=_parameters(model, trainable),
        device=place.device.name,
        devices=place.devices,
        sharding=next((n for n, name in SHARDINGS.items() if name == place.sharding), trainer.SHARDING_UNSPECIFIED),
        tuner="qlora" if work.asked.quantization else work.asked.tuner,
        batch_size=work.batch_size,
        max_length=work.max_length,
        gradient_checkpointing=work.checkpoints_activations(model.parameters),
        memory=_memory(model, work, held, place.device),
        disk=_disk(model, work, trainable, staged_bytes),
        step_flops=flops(model, work),
        steps=work.updates(rows, place.devices) if rows or work.max_steps else 0,
        fits=not place.device.bytes or held.peak <= place.device.usable,
        trainable=is_trained_so(work, place.device, place.devices, place.sharding),
        notes=_notes(model, work, place),
    )
    _put_times(found, work, place)
    reachable = fits(model, work)
    found.pools.extend(_pool(work, fit) for fit in reachable)
    found.advice = _advice(model, work, place, found.fits, reachable)
    return found


def _other(role: str, config: Mapping[str, Any]) -> Architecture:
    """A model that is read beside the base. Raises UnplannableError, which names what it is for."""
    try:
        return architecture(config, *(("classes", 1) if role == "reward" else ("tokens", 0)))
    except UnplannableError as error:
        raise UnplannableError(f"{role}.{error.field}", error.what) from error


def _parameters(model: Architecture, trainable: int) -> trainer.ParameterCount:
    return trainer.ParameterCount(
        embedding=model.embedding,
        attention=model.attention,
        mlp=model.mlp,
        norms=model.norms,
        head=model.head,
        total=model.parameters,
        trainable=trainable,
    )


def _memory(model: Architecture, work: Work, held: Memory, device: Device) -> trainer.MemoryPlan:
    return trainer.MemoryPlan(
        weights_bytes=held.weights,
        gradients_bytes=held.gradients,
        optimizer_bytes=held.optimizer,
        activations_bytes=held.activations,
        logits_bytes=held.logits,
        other_bytes=held.other,
        peak_bytes=held.peak,
        limit_bytes=device.usable,
        host_bytes=host_memory(model, work, held),
        drawn_bytes=held.drawn,
        beside_bytes=held.beside,
        peak_at=held.moment,
    )


def _disk(model: Architecture, work: Work, trainable: int, staged: int) -> trainer.DiskPlan:
    needed = disk(model, work, trainable, staged)
    return trainer.DiskPlan(
        staged_bytes=needed.staged,
        checkpoint_bytes=needed.checkpoint,
        output_bytes=needed.output,
        total_bytes=needed.most,
    )


def _put_times(found: trainer.TrainingPlan, work: Work, place: Place) -> None:
    """Nothing where no speed is known: a time out of the air is worse than none."""
    if place.tokens_per_s:
        step_s = work.tokens * work.accumulation / place.tokens_per_s
        found.time_basis = f"{place.tokens_per_s:g} tokens/s on one device, as stated"
    elif place.tflops:
        step_s = found.step_flops / (place.tflops * 1e12)
        found.time_basis = f"{place.tflops:g} TFLOP/s on one device, as stated"
    elif place.device.flops:
        step_s = found.step_flops / place.device.flops
        found.time_basis = (
            f"at the least: {place.device.flops / 1e12:g} TFLOP/s of the data sheet of {place.device.name}, "
            "of which training reaches a part"
        )
    else:
        found.time_basis = f"no speed of {place.device.name} is known: state tokens per second or TFLOP/s"
        return
    found.step_time.FromTimedelta(timedelta(seconds=step_s))
    if found.steps:
        found.total_time.FromTimedelta(timedelta(seconds=step_s * found.steps))


def _pool(work: Work, fit: Fit) -> trainer.PoolFit:
    return trainer.PoolFit(
        device=fit.device.name,
        devices=fit.devices,
        nodes=fit.nodes,
        sharding=trainer.SHARDING_ZERO3 if fit.sharding == "zero3" else trainer.SHARDING_UNSPECIFIED,
        peak_bytes=fit.peak,
        limit_bytes=fit.device.usable,
        trainable=fit.devices > 0 and is_trained_so(work, fit.device, fit.devices, fit.sharding),
    )


def _advice(model: Architecture, work: Work, place: Place, fitting: bool, reachable: list[Fit]) -> str:
    name = f"{place.devices} × {place.device.name}" if place.devices > 1 else place.device.name
    if not place.device.bytes:
        return f"how much memory {name} has is not known here."
    if fitting:
        trained_so = is_trained_so(work, place.device, place.devices, place.sharding)
        return f"it fits on {name}" + ("." if trained_so else "; this version does not train it so.")
    change = one_change(model, work, place.device, place.sharding, place.devices)
    if change:
        return f"it does not fit on {name}; it does with {change}."
    alone = next((fit for fit in reachable if fit.devices == 1), None)
    if alone:
        return f"it does not fit on {name}, and no single setting changes that; it fits on one {alone.device.name}."
    shared = min((fit for fit in reachable if fit.devices), key=lambda fit: fit.devices, default=None)
    if shared:
        trained_so = is_trained_so(work, shared.device, shared.devices, shared.sharding)
        return (
            f"it does not fit on {name}, and no single setting changes that; {shared.devices} × {shared.device.name} "
            "would hold it with zero3" + ("." if trained_so else ", which this version does not train so.")
        )
    return f"it does not fit on {name}, nor on 128 of any accelerator known here; take a smaller model or shorter rows."


def _notes(model: Architecture, work: Work, place: Place) -> list[str]:
    on_cpu = place.device.kind == "cpu"
    notes = [MEASURED if on_cpu else COMPUTED]
    odd = {
        f"the architecture {model.kind}": bool(model.sight) or (model.encoder and model.kind != "bert"),
        f"the recipe {work.asked.recipe}": work.asked.recipe not in MEASURED_RECIPES,
        f"the tuner {work.asked.tuner}": work.asked.tuner not in ("full", "lora"),
        f"quantization {work.asked.quantization}": bool(work.asked.quantization),
        f"the optimizer {work.asked.optimizer}": work.asked.optimizer != "adamw",
    }
    if on_cpu:
        notes += [UNPROVEN.format(what[0].upper() + what[1:]) for what, is_odd in odd.items() if is_odd]
        notes.append(f"Memory is above what a process has after its imports, about {IMPORTS / 1e6:.0f} MB here.")
    notes.append("Every row is taken to be as long as it may be; shorter rows take less.")
    if work.new_tokens:
        notes.append("Answers that are drawn are taken to fit the longest row with what was asked.")
    if model.sight:
        notes.append("Every token of a row is taken to be one of an image; fewer images take less.")
    if place.sharding != "single":
        notes.append("Shares of several devices are arithmetic alone.")
    return notes
