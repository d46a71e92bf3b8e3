"""How a plan of a training job looks: `sluice train --plan`; it computes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice.cli import exits, screen, words

if TYPE_CHECKING:
    from sluice.cli.options import Session
    from sluice.trainer import v1 as trainer


def show(
    session: Session,
    spec: trainer.TrainingJobSpec,
    device: str,
    devices: int,
    sharding: str,
    tokens_per_s: float,
    tflops: float,
) -> int:
    """Asks for the plan and shows it; FAILED where it does not fit."""
    plan = session.client.jobs.plan(
        spec,
        device=device,
        devices=devices,
        sharding=sharding,
        tokens_per_s=tokens_per_s,
        tflops=tflops,
    )
    memory, pools = _memory(plan), _pools(plan)
    screen.fields(session, plan, _about(plan), memory, pools)
    if not session.json:
        screen.put("")
        screen.put(screen.heading(plan.advice[:1].upper() + plan.advice[1:]))
    for note in plan.notes:
        screen.hint(session, note)
    if not plan.HasField("step_time"):
        screen.hint(session, "say how fast a device is: --tokens-per-s, measured with this model, or --tflops")
    return exits.OK if plan.fits else exits.FAILED


def _about(plan: trainer.TrainingPlan) -> dict[str, Any]:
    counts, place = plan.parameters, plan.device
    if plan.devices > 1:
        place = f"{plan.devices} × {plan.device}, {_shared(plan.sharding)}"
    checkpointing = ", activations computed twice" if plan.gradient_checkpointing else ""
    each = words.duration(plan.step_time.ToTimedelta().total_seconds()) if plan.HasField("step_time") else "?"
    whole = (
        f", {words.duration(plan.total_time.ToTimedelta().total_seconds())} in all"
        if plan.HasField("total_time")
        else ""
    )
    disk = plan.disk
    return {
        "model": f"{plan.architecture}, {_count(counts.total)} parameters",
        "trained": f"{_count(counts.trainable)} ({plan.tuner})",
        "of them": f"embedding {_count(counts.embedding)}, attention {_count(counts.attention)}, "
        f"MLP {_count(counts.mlp)}, norms {_count(counts.norms)}, head {_count(counts.head)}",
        "step": f"{plan.batch_size} rows of at most {plan.max_length} tokens{checkpointing}",
        "on": place,
        "memory": _against(plan.memory.peak_bytes, plan.memory.limit_bytes),
        "fits": plan.fits if plan.memory.limit_bytes else "",
        "host": f"{words.size(plan.memory.host_bytes)}, the process in all",
        "time": f"{each} a step, {plan.steps or '?'} steps{whole}" if plan.HasField("step_time") else plan.time_basis,
        "time rests on": plan.time_basis if plan.HasField("step_time") else "",
        "disk": f"{words.size(disk.total_bytes)}: base {words.size(disk.staged_bytes)}, checkpoints 3 × "
        f"{words.size(disk.checkpoint_bytes)}, output {words.size(disk.output_bytes)}",
    }


def _memory(plan: trainer.TrainingPlan) -> Any:
    held = plan.memory
    parts = {
        "weights": held.weights_bytes,
        "gradients": held.gradients_bytes,
        "optimizer": held.optimizer_bytes,
        "activations": held.activations_bytes,
        "logits": held.logits_bytes,
        "trainer": held.other_bytes,
    }
    columns = {"part": lambda part: part[0], "bytes": lambda part: words.size(part[1])}
    return screen.titled("At its most on one device (not all at once)", list(parts.items()), columns)


def _pools(plan: trainer.TrainingPlan) -> Any:
    columns = {
        "accelerator": lambda pool: pool.device,
        "fewest": lambda pool: pool.devices or "more than 128",
        "nodes": lambda pool: pool.nodes or "",
        "shared by": lambda pool: _shared(pool.sharding) if pool.devices > 1 else "",
        "each holds": lambda pool: _against(pool.peak_bytes, pool.limit_bytes),
        "trains today": lambda pool: "yes" if pool.trainable else "no, arithmetic alone",
    }
    return screen.titled("Where it would fit", list(plan.pools), columns)


def _shared(sharding: trainer.Sharding) -> str:
    from sluice.trainer import v1 as trainer

    name = trainer.Sharding.Name(sharding)
    return "" if sharding == trainer.SHARDING_UNSPECIFIED else name.removeprefix("SHARDING_").lower()


def _against(held: int, limit: int) -> str:
    return f"{words.size(held)} of {words.size(limit)}" if limit else words.size(held)


def _count(numbers: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if numbers >= size:
            return f"{numbers / size:.3g} {unit}"
    return str(numbers)
