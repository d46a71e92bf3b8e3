"""How a plan of a training job looks: `sluice train --plan`; it computes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sluice.cli import exits, screen, words

if TYPE_CHECKING:
    from sluice.cli.options import Session
    from sluice.trainer import v1 as trainer

#: Columns of a terminal that stand for all that is held at the most.
BAR = 24


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
    if not session.json:
        screen.put(screen.heading(plan.advice[:1].upper() + plan.advice[1:]))
        screen.put("")
    screen.fields(session, plan, _about(plan), _memory(plan), _pools(plan))
    if not session.json:
        screen.put("")
    for note in plan.notes:
        screen.hint(session, note)
    if not plan.HasField("step_time"):
        screen.hint(session, "Say how fast a device is: --tokens-per-s, measured with this model, or --tflops.")
    return exits.OK if plan.fits else exits.FAILED


def _about(plan: trainer.TrainingPlan) -> dict[str, Any]:
    counts, place, disk = plan.parameters, plan.device, plan.disk
    if plan.devices > 1:
        place = f"each of {plan.devices} × {plan.device}, {_shared(plan.sharding)}"
    checkpointing = ", activations computed twice" if plan.gradient_checkpointing else ""
    return {
        "model": f"{plan.architecture}, {_count(counts.total)} parameters: embedding {_count(counts.embedding)}, "
        f"attention {_count(counts.attention)}, MLP {_count(counts.mlp)}" + _own_head(counts.head),
        "trained": f"{_count(counts.trainable)} ({plan.tuner})",
        "step": f"{plan.batch_size} row{'' if plan.batch_size == 1 else 's'} of at most {plan.max_length} tokens"
        f"{checkpointing}",
        "on": place,
        "memory": f"{_against(plan.memory.peak_bytes, plan.memory.limit_bytes)}, when {plan.memory.peak_at}",
        "host": f"{words.size(plan.memory.host_bytes)}, the process in all",
        "time": _time(plan),
        "disk": f"{words.size(disk.total_bytes)}: models {words.size(disk.staged_bytes)}, checkpoints 3 × "
        f"{words.size(disk.checkpoint_bytes)}, output {words.size(disk.output_bytes)}",
    }


def _own_head(numbers: int) -> str:
    return f", head {_count(numbers)}" if numbers else ""


def _time(plan: trainer.TrainingPlan) -> str:
    if not plan.HasField("step_time"):
        return plan.time_basis
    each = f"{words.duration(plan.step_time.ToTimedelta().total_seconds())} a step"
    if plan.HasField("total_time"):
        whole = words.duration(plan.total_time.ToTimedelta().total_seconds())
        each = f"{whole} for {plan.steps} steps, {each}"
    return f"{each} ({plan.time_basis})"


def _memory(plan: trainer.TrainingPlan) -> Any:
    held = plan.memory
    parts = {
        "weights": held.weights_bytes - held.beside_bytes,
        "models beside": held.beside_bytes,
        "gradients": held.gradients_bytes,
        "optimizer": held.optimizer_bytes,
        "activations": held.activations_bytes,
        "loss": held.logits_bytes,
        "drawing answers": held.drawn_bytes,
        "trainer": held.other_bytes,
    }
    columns = {
        "part": lambda part: part[0],
        "bytes": lambda part: words.size(part[1]),
        "": lambda part: "█" * round(BAR * part[1] / max(1, held.peak_bytes)),
    }
    there = [part for part in parts.items() if part[1]]
    return screen.titled("What one device holds, not all of it at once", there, columns)


def _pools(plan: trainer.TrainingPlan) -> Any:
    """Those on which it does not fit alone, and the first on which it does: it does on all that are larger, too."""
    alone = next((place for place, pool in enumerate(plan.pools) if pool.devices == 1), len(plan.pools))
    columns = {
        "accelerator": lambda pool: pool.device,
        "fewest": lambda pool: pool.devices or "more than 128",
        "nodes": lambda pool: pool.nodes or "",
        "shared by": lambda pool: _shared(pool.sharding) if pool.devices > 1 else "",
        "each holds": lambda pool: _against(pool.peak_bytes, pool.limit_bytes),
        "trains today": lambda pool: "yes" if pool.trainable else "no, arithmetic alone",
    }
    larger = len(plan.pools) - alone - 1
    more = f"; each of the {larger} larger ones holds it, too" if larger > 0 else ""
    return screen.titled(f"Where it would fit{more}", plan.pools[: alone + 1], columns)


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
