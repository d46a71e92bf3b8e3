"""Bases that see: what of them makes vectors of pixels, what brings these to the language model, and which of it an
adapter changes; knows no task."""

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from peft import IA3Config, PeftConfig
from torch.nn import Linear
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.quantization import steady
from services.trainer.recipes.tuning import ALL_LINEAR, check_targets

PartOfModel = Literal["tower", "projector", "language"]
#: What transformers calls them in its models of LLaVA, Qwen-VL, Idefics, SmolVLM, InternVL, Gemma and Mistral.
PROJECTORS = {"merger", "merger_list", "deepstack_merger_list", "multi_modal_projector", "connector"}
TOWERS = {"visual", "vision_tower", "vision_model", "vision_encoder"}


def load_sighted(folder: Path) -> tuple[ProcessorMixin, PreTrainedModel]:
    """Processor and float32 weights of a Hugging Face model that writes about images. Raises BadInput otherwise."""
    if not (folder / "config.json").is_file():
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.")
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32", trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise BadInput("in/base cannot be loaded as a model that sees and writes, with its processor.") from error
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise BadInput("in/base has no processor of images; take a vision-language model as the base.")
    if not any(part_of(name) == "tower" for name, _ in model.named_parameters()):
        raise BadInput("in/base has no vision tower of a name that is known here; take another architecture.")
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    processor.tokenizer.pad_token = processor.tokenizer.pad_token or processor.tokenizer.eos_token
    steady(model)
    return processor, model


def part_of(name: str) -> PartOfModel:
    """The part of a model that a module or a weight of this name belongs to."""
    rooms = set(name.split("."))
    if rooms & PROJECTORS:
        return "projector"
    return "tower" if rooms & TOWERS else "language"


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
            "or train the vision tower or the projector too."
        )
