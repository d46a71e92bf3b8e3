"""What a recipe's process must settle before torch and its kin are imported; knows no job."""

import json
import os
import sys
from pathlib import Path

from services.trainer.distribution import ZERO
from services.trainer.refusals import Asked

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
    "TQDM_DISABLE": "1",  # bars, which a log has no use for
}


#: What transformers, peft and trl import as soon as it is installed, and few recipes need: seconds, 100 MB and more,
#: and an error where a package is a CUDA build on a machine without CUDA.
SELDOM_NEEDED = frozenset(
    [
        "bitsandbytes",
        "deepspeed",
        "scipy",
        "sentence_transformers",
        "sklearn",
        "torchao",
        "torchaudio",
        "torchcodec",
        "torchvision",
        "vllm",
    ]
)


def prepare_process(*needed: str) -> None:
    """Forbid the libraries every network call, and hide from them the packages that are not `needed` here.

    What the spec of the job needs is not hidden either; the job directory is the process's last argument.
    `None` in `sys.modules` is Python's own way to say "not installed".
    """
    if unknown := set(needed) - SELDOM_NEEDED:
        raise ValueError(f"{min(unknown)} is never hidden")
    os.environ.update(_QUIET)
    # Threads that wait for each other sleep instead of spinning: on busy cores spinning took up to seven times
    # the wall time (measured with GNU OpenMP).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for package in sorted(SELDOM_NEEDED - set(needed) - packages(Path(sys.argv[-1]) / "spec.json")):
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]


def bring_back(package: str) -> None:
    """What `prepare_process` hid can be imported from now on: a job turns out to need it."""
    if sys.modules.get(package, package) is None:
        del sys.modules[package]


def packages(spec: Path) -> set[str]:
    """The packages that a tuner or an optimizer of a spec needs; none where there is no spec that can be read."""
    try:
        asked = Asked.of(json.loads(spec.read_text("utf-8"))["parameters"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()  # the recipe will say what is wrong with it
    # GaLore and APOLLO import it whether they are asked for 8 bits or not.
    eight_bits = ("adamw_8bit", "paged_adamw_8bit", "galore", "apollo")
    needed = {"bitsandbytes"} if asked.quantization or asked.optimizer in eight_bits else set()
    shared = asked.distribution
    return needed | ({"deepspeed"} if shared.engine in ZERO or shared.sequence > 1 else set())
