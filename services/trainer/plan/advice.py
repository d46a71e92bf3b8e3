"""Where a job fits, and the one setting that makes it fit; it changes nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from services.trainer.distribution import wrong
from services.trainer.plan.architecture import Architecture
from services.trainer.plan.devices import ACCELERATORS, Device
from services.trainer.plan.memory import memory
from services.trainer.plan.work import Sharding, Work
from services.trainer.refusals import QUANTIZING, Asked, refusals

SHORTEST = 64
#: Several devices, tried in this order; 8 stand in a node.
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Fit:
    """The fewest devices of a kind on which a job fits, 0 where so many do not help, and what each holds then."""

    device: Device
    devices: int
    sharding: Sharding
    peak: int

    @property
    def nodes(self) -> int:
        """Hosts with that many devices."""
        return -(-self.devices // self.device.in_node)


def is_trained_so(work: Work, device: Device, devices: int, sharding: Sharding) -> bool:
    """Whether this version trains the job so; a plan of what it refuses is arithmetic alone."""
    told = replace(work.asked.distribution, devices=devices, sharding="" if sharding == "single" else sharding)
    asked = replace(work.asked, distribution=told, device=device.kind, devices=0)
    return (device.kind == "cpu" or devices <= device.in_node) and not any(wrong(asked))


def one_change(model: Architecture, work: Work, device: Device, sharding: Sharding, devices: int) -> str:
    """What to change, of the settings of a job, so that it fits: one of them, or empty where none does alone."""
    for words, changed in _changes(model, work):
        asked = changed.asked
        if not refusals(asked) and memory(model, changed, sharding, devices).peak <= device.usable:
            return words
    return ""


def _changes(model: Architecture, work: Work) -> Iterator[tuple[str, Work]]:
    """Each setting by itself, those that change the result least first."""
    if work.checkpointing is False:  # as was asked; else the recipe decides, and nobody can change it
        yield "gradient_checkpointing as the recipe decides it", replace(work, checkpointing=None)
    rows = work.batch_size // 2
    while rows:
        times = work.accumulation * -(-work.batch_size // rows)
        same = f"; with gradient_accumulation_steps {times} an update sees as many rows"
        fewer = replace(work.with_optimization(batch_size=rows), batch_size=rows)  # which a group may not divide
        yield f"batch_size {rows} in place of {work.batch_size}{same}", fewer
        rows //= 2
    length = work.max_length // 2
    while length >= SHORTEST:
        words = f"max_length {length} in place of {work.max_length}; longer rows are left out"
        yield words, replace(work, max_length=length)
        length //= 2
    if work.asked.tuner == "full" and work.asked.optimizer == "adamw":
        yield "optimizer adamw_8bit", work.with_optimization(optimizer="adamw_8bit")
        yield "optimizer adafactor", work.with_optimization(optimizer="adafactor")
    if work.asked.tuner != "lora":
        yield "tuner lora", replace(work, asked=_lora(work.asked, ""))
    if work.asked.recipe in QUANTIZING and work.asked.quantization != "nf4":
        words = "quantization nf4" if work.asked.tuner == "lora" else "tuner qlora (lora with quantization nf4)"
        yield words, replace(work, asked=_lora(work.asked, "nf4"))


def _lora(asked: Asked, quantization: str) -> Asked:
    settings = dict(asked.settings) if asked.tuner == "lora" else {"rank": 16}
    return replace(asked, tuner="lora", settings=settings | ({"quantization": quantization} if quantization else {}))


def fits(model: Architecture, work: Work) -> list[Fit]:
    """For each accelerator that is known the fewest on which the job fits, alone or in shares of ZeRO-3."""
    return [_fewest(model, work, device) for device in ACCELERATORS.values()]


def _fewest(model: Architecture, work: Work, device: Device) -> Fit:
    there = replace(work, asked=replace(work.asked, device=device.kind), bfloat16=True)
    peak = 0
    for count in COUNTS:
        sharding: Sharding = "single" if count == 1 else "zero3"
        peak = memory(model, there, sharding, count).peak
        if peak <= device.usable:
            return Fit(device, count, sharding, peak)
    return Fit(device, 0, "zero3", peak)
