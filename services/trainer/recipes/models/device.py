"""What recipes compute on, by torch's own device backends, and what follows from it; knows no task and no model.

NVIDIA's and AMD's GPUs are `cuda` to torch, Intel's `xpu`, Ascend's `npu` (through torch_npu), Apple's `mps`; a machine
with an ARM processor and none of them is `cpu` like any other. torch is imported by who asks for the device, not here.
"""

import importlib
import os
import sys
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from services.trainer.refusals import BFLOAT16, device_told

#: Backends that torch does not bring: the package that adds each when it is imported.
PLUGINS = {"npu": "torch_npu"}
#: Devices whose memory is not the host's, so that batches get there faster from pinned pages.
PINNED = ("cuda", "xpu", "npu")


def device_type() -> str:
    """`cpu`, `cuda`, `xpu`, `npu` or `mps`: what SLUICE_DEVICE_TYPE tells, else what torch finds.

    Raises BadInput for one that is told and not there: something else in its place would be slower without a word.
    """
    told = device_told(os.environ)
    if told == "cpu":
        return told
    _bring(told)
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    kind = "cpu" if found is None else found.type
    if told and kind != told:
        raise BadInput(
            f"SLUICE_DEVICE_TYPE is {told}, and torch finds {kind}; install the driver and the torch of that device, "
            f"or set it to {kind}."
        )
    return kind


def bfloat16_here() -> bool:
    """Whether the device computes in bfloat16 as fast as it is meant to: not on CPUs, Apple's, or GPUs before 2020."""
    kind = device_type()
    if kind == "cuda":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind in BFLOAT16


def pins_memory() -> bool:
    """Whether batches are made in pages that the device can fetch by itself."""
    return device_type() in PINNED


def accelerator() -> Any:
    """torch's module of the accelerator it has, such as `torch.cuda`; None on a CPU, and before torch is imported."""
    torch = sys.modules.get("torch")
    if torch is None or device_told(os.environ) == "cpu":
        return None
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else torch.get_device_module(found)


def _bring(told: str) -> None:
    """Imports what adds the backend to torch. Raises BadInput where it is not installed."""
    if told not in PLUGINS:
        return
    try:
        importlib.import_module(PLUGINS[told])
    except ImportError as error:
        raise BadInput(
            f"SLUICE_DEVICE_TYPE is {told}, which torch knows through {PLUGINS[told]}, and that cannot be imported; "
            "install the release of it that fits torch and the driver."
        ) from error
