"""Runs vLLM's OpenAI server in the child process; here alone torch and vllm are seen, and of Sluice what a sound is.

Media packages built for CUDA beside a CPU torch are repaired at import and not in `main`, because vLLM's
engine process imports this module again under another name and needs the repair too.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch

from sluice.senses import ODD_SOUND, is_rate

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare_missing_operators() -> torch.library.Library | None:
    """Declare torchvision's schemas where its compiled part cannot load; the caller keeps the result."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return None
    try:
        for compiled in Path(package.origin).parent.glob("_C*.so"):
            torch.ops.load_library(compiled)  # type: ignore[no-untyped-call]
            return None
    except OSError:  # built for CUDA; importing it would fail with "operator torchvision::nms does not exist"
        pass
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _OPERATORS:
        library.define(schema)  # type: ignore[no-untyped-call]
    return library


def hide_unloadable(*packages: str) -> bool:
    """Make packages whose native library cannot load look absent; True if there was one."""
    hidden = False
    for package in packages:
        try:
            importlib.import_module(package)
        except (OSError, RuntimeError):
            sys.modules[package] = None  # type: ignore[assignment]  # documented: makes the import fail
            hidden = True
        except ImportError:
            continue
    return hidden


def leave_logits_to_the_base() -> None:
    """Take LoRA off the output layer on CPUs; no adapter that we load tunes it (`adapter_files`).

    vLLM's kernel pairs logits with requests, but the logits of a prompt (`prompt_logprobs`) are one a token: with two
    requests in a batch the engine process dies, whoever asked.
    """
    kernels = importlib.import_module("vllm.lora.punica_wrapper.punica_cpu")
    setattr(kernels.PunicaWrapperCPU, "add_lora_logits", lambda *_, **__: None)  # noqa: B010


def resample_as_in_training() -> None:
    """Bring sounds to a model's rate by SciPy, as recipes do, and not by torchaudio, which may not load."""
    audio = importlib.import_module("vllm.multimodal.audio")
    setattr(audio, "resample_audio_torchaudio", audio.resample_audio_scipy)  # noqa: B010


def find_heads_of_models_that_see() -> None:
    """Have `score.weight`, as transformers names it, found where vLLM puts the head of classes of a model that sees.

    That is within its language model (0.32, `as_seq_cls_model` of both), and a checkpoint has it beside: "There is no
    module or parameter named 'score'".
    """
    loader = importlib.import_module("vllm.model_executor.model_loader.default_loader").DefaultModelLoader
    plain = loader.get_all_weights

    def named(self: Any, model_config: Any, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        within = hasattr(getattr(model, "language_model", None), "score") and not hasattr(model, "score")
        for name, weight in plain(self, model_config, model):
            yield f"language_model.{name}" if within and name.startswith("score.") else name, weight

    setattr(loader, "get_all_weights", named)  # noqa: B010


def blame_callers_for_sounds() -> None:
    """Say of what soundfile cannot decode that the request was wrong, as vLLM's other decoders do: else it is a 500.

    So too of what is decoded and would take all memory at its rate, or make a model answer with NaN.
    """
    loaders = importlib.import_module("vllm.multimodal.media.audio")._AUDIO_LOADERS
    load = loaders["soundfile"]

    def loaded(*sound: object, **how: object) -> object:
        try:
            samples, rate = load(*sound, **how)
        except RuntimeError as error:  # soundfile's own are of this kind
            raise ValueError("A sound cannot be decoded; send it as WAV, FLAC, OGG or MP3.") from error
        if not len(samples) or not is_rate(rate) or not numpy.isfinite(samples).all():
            raise ValueError(f"A sound {ODD_SOUND}")
        return samples, rate

    loaders["soundfile"] = loaded


_operators = declare_missing_operators()
_repaired = hide_unloadable("torchaudio", "torchcodec") or _operators is not None
if "--enable-lora" in sys.argv:  # also of the engine's process, which is given its parent's
    leave_logits_to_the_base()
if "pooling" in sys.argv:
    find_heads_of_models_that_see()


def main() -> None:
    # Pillow's own limit is an error 500; vLLM's (VLLM_MAX_IMAGE_PIXELS), looked at before decoding, a 400.
    setattr(importlib.import_module("PIL.Image"), "MAX_IMAGE_PIXELS", None)  # noqa: B010
    resample_as_in_training()
    blame_callers_for_sounds()
    if _repaired:
        # vLLM inspects the model class in a fresh interpreter without these repairs; on CPU this one will do.
        registry = importlib.import_module("vllm.model_executor.models.registry")
        setattr(registry, "_run_in_subprocess", lambda inspect: inspect())  # noqa: B010
    entry = importlib.import_module("vllm.entrypoints.launchers.api_server.entry")
    entry.main()


if __name__ == "__main__":
    main()
