"""Bases that see or hear: what of them makes vectors of pixels and sounds, what brings these to the language model, and
which of it an adapter changes; knows no task."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from peft import IA3Config, PeftConfig
from torch.nn import Linear
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.models.base_model import have_padding
from services.trainer.recipes.models.quantization import steady
from services.trainer.recipes.models.tuning import ALL_LINEAR, check_targets
from services.trainer.recipes.models.video_positions import count_time
from sluice.model_parts import PartOfModel, part_of


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model. Raises BadInput where there is none."""
    try:
        return dict(json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.") from error


def load_sighted(folder: Path) -> tuple[ProcessorMixin, PreTrainedModel]:
    """Processor and float32 weights of a Hugging Face model that writes about images. Raises BadInput otherwise."""
    processor, model = _load(folder, AutoModelForImageTextToText, "sees and writes")
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise BadInput("in/base has no processor of images; take a vision-language model as the base.")
    if not any(part_of(name) == "tower" for name, _ in model.named_parameters()):
        raise BadInput("in/base has no vision tower of a name that is known here; take another architecture.")
    return _ready(processor, model)


def load_hearing(folder: Path) -> tuple[ProcessorMixin, PreTrainedModel]:
    """Processor and float32 weights of a Hugging Face model that writes about sounds. Raises BadInput otherwise."""
    processor, model = _load(folder, AutoModelForMultimodalLM, "hears and writes")
    if getattr(processor, "feature_extractor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise BadInput("in/base has no processor of sounds; take a model that hears, such as Qwen3-ASR, as the base.")
    if not any(part_of(name) == "audio_tower" for name, _ in model.named_parameters()):
        raise BadInput("in/base has no audio tower of a name that is known here; take another architecture.")
    return _ready(processor, model)


def _load(folder: Path, kind: Any, does: str) -> tuple[ProcessorMixin, PreTrainedModel]:
    read_config(folder)
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        return processor, kind.from_pretrained(folder, dtype="float32", trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, StrictDataclassError) as error:
        raise BadInput(f"in/base cannot be loaded as a model that {does}, with its processor.") from error


def _ready(processor: ProcessorMixin, model: PreTrainedModel) -> tuple[ProcessorMixin, PreTrainedModel]:
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    have_padding(processor.tokenizer)
    steady(model)
    count_time(model)
    return processor, model


def freeze(model: PreTrainedModel, trained: Collection[PartOfModel]) -> None:
    """Leaves all parts but those as they are."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(part_of(name) in trained)


def confine(model: PreTrainedModel, adapter: PeftConfig, trained: Collection[PartOfModel]) -> None:
    """Has an adapter change those parts only: of their linear modules all, or the ones that it names.

    Raises BadInput where it names none of theirs.
    """
    check_targets(model, adapter)
    head = model.get_output_embeddings()
    linears = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and module is not head and part_of(name) in trained
    ]

    def those(targets: Collection[str] | str) -> set[str]:
        if targets == ALL_LINEAR:
            return set(linears)
        return {name for name in linears if any(f".{name}".endswith(f".{target}") for target in targets)}

    adapter.target_modules = those(adapter.target_modules)
    if isinstance(adapter, IA3Config):
        adapter.feedforward_modules = those(adapter.feedforward_modules)
    if not adapter.target_modules:
        raise BadInput(
            "target_modules names no linear module of the parts that are trained; leave it empty for all of theirs, "
            "or train the tower or the projector too."
        )
