"""MFU: the operations that a model's tokens need over those that its devices could do; knows no task.

As Chowdhery et al. 2022 (arXiv:2204.02311, appendix B) define it: computing activations twice earns nothing, and every
token counts as if its logits were computed.
"""

from __future__ import annotations

import time

import torch
from transformers import PreTrainedModel, Trainer

from services.trainer.plan.architecture import architecture
from services.trainer.plan.devices import ACCELERATORS
from services.trainer.plan.effort import flops_per_token
from services.trainer.plan.fields import UnplannableError
from services.trainer.recipes.job.jobdir import JobDir

PROBE_SIZE = {"cpu": 1024, "cuda": 8192}
TRIES = 3


def utilization(trainer: Trainer, job: JobDir, tokens_per_s: float) -> dict[str, float]:
    """`mfu`, `mfu_peak_flops_per_s` and `model_flops_per_s`; nothing for models or rows whose operations are not known.

    Where the peak is from stands in `job.notes` as `mfu_peak`: a data sheet, else a product of matrices that was
    measured here, in the same numbers and with the same threads.
    """
    length = mean_length(trainer)
    model = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    if length is None or not isinstance(model, PreTrainedModel):
        return {}
    try:
        counted = architecture(model.config.to_dict())
    except UnplannableError:
        return {}
    whole = all(weight.requires_grad for weight in model.parameters())
    done = tokens_per_s * flops_per_token(counted, length, 3 if whole else 2)
    peak, told = _peak(trainer.args.device, torch.bfloat16 if trainer.args.bf16 else torch.float32)
    job.notes["mfu_peak"] = told
    peak *= trainer.args.world_size
    return {"model_flops_per_s": done, "mfu_peak_flops_per_s": peak, "mfu": done / peak}


def mean_length(trainer: Trainer) -> float | None:
    """Tokens of a row among which attention is computed, on average; None where the rows do not tell."""
    columns = getattr(trainer.train_dataset, "column_names", [])
    if "seq_lengths" in columns:
        lengths = [length for row in trainer.train_dataset["seq_lengths"] for length in row]
    else:
        lengths = list(trainer.train_dataset["length"]) if "length" in columns else []
    return sum(lengths) / len(lengths) if lengths else None


def _peak(device: torch.device, numbers: torch.dtype) -> tuple[float, str]:
    """Operations in a second, and where that is from."""
    if device.type == "cuda" and numbers is torch.bfloat16:
        words = torch.cuda.get_device_name(device).lower().replace("-", " ").split()
        for name, card in ACCELERATORS.items():
            if name.partition("-")[0] in words:
                return card.flops, f"{name}, dense bfloat16 by its data sheet"
    size = PROBE_SIZE.get(device.type, 4096)
    left, right = (torch.ones((size, size), dtype=numbers, device=device) for _ in range(2))
    best = min(_seconds(left, right) for _ in range(TRIES + 1))
    return 2 * size**3 / best, f"{str(numbers).removeprefix('torch.')} product of {size} by {size}, measured there"


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    began = time.perf_counter()
    (left @ right)[0, 0].item()  # waits for the device
    return time.perf_counter() - began
