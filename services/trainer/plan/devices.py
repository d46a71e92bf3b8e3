"""Accelerators by name: what they hold and compute at most, by their makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass

from services.trainer.plan.fields import UnplannableError

MIB = 1 << 20
#: The share of a device that tensors may fill; the rest is the driver's, the kernels', and lost between blocks.
USABLE = 0.92


@dataclass(frozen=True)
class Device:
    """``flops`` are dense bfloat16 operations in a second without sparsity, 0 where nobody has said."""

    name: str
    kind: str
    bytes: int
    flops: float = 0.0
    in_node: int = 1

    @property
    def usable(self) -> int:
        """Bytes that tensors may take."""
        return int(self.bytes * (USABLE if self.kind != "cpu" else 1.0))


#: Memory as nvidia-smi shows it, operations from NVIDIA's data sheets of each; smallest first.
ACCELERATORS = {
    device.name: device
    for device in (
        Device("a10-24gb", "cuda", 23028 * MIB, 125e12, 8),
        Device("l4-24gb", "cuda", 23034 * MIB, 121e12, 8),
        Device("a100-40gb", "cuda", 40960 * MIB, 312e12, 8),
        Device("l40s-48gb", "cuda", 46068 * MIB, 362e12, 8),
        Device("h100-80gb", "cuda", 81559 * MIB, 989e12, 8),
        Device("a100-80gb", "cuda", 81920 * MIB, 312e12, 8),
        Device("h200-141gb", "cuda", 143771 * MIB, 989e12, 8),
    )
}


def accelerator(name: str) -> Device:
    """The accelerator of that name. Raises UnplannableError."""
    if name not in ACCELERATORS:
        raise UnplannableError("device", f"is `{name}`; the planner knows cpu, {', '.join(ACCELERATORS)}")
    return ACCELERATORS[name]
