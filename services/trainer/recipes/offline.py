"""What a recipe's process must settle before torch and its kin are imported; knows no job."""

import os
import sys

_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare_process() -> None:
    """Forbid the libraries every network call, and hide picture and sound packages from them.

    Text recipes need neither, and transformers imports both when they are there: four seconds, and an
    error where they are CUDA builds on a machine without CUDA. `None` in `sys.modules` is Python's own way
    to say "not installed".
    """
    os.environ.update(_QUIET)
    # Threads that wait for each other sleep instead of spinning: on busy cores spinning took up to seven times
    # the wall time (measured with GNU OpenMP).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for package in ("torchvision", "torchaudio"):
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]
