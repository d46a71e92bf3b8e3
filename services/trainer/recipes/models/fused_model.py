"""Classifiers of a text with images: one model that reads both, or an encoder of each and a head on both vectors.

Knows no task and no rows. What the second kind leaves is served by `services/gateway/engines/fuse_classes.py`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.models.quantization import steady
from services.trainer.recipes.models.stored import check_whole
from sluice.fusion import HEAD, WEIGHTS

Fusion = Literal["early", "late"]
#: What the heads of both kinds are called, which an adapter leaves whole.
HEADS = ("score", "classifier")
SCORE = "score.weight"
#: Models with an encoder of images and one of texts, whose vectors have one length, that engines here serve.
APART = ("clip",)


class ReadsTogether(GenericForSequenceClassification):
    """Early fusion: the images' vectors stand among those of the tokens, and the head is on the last token."""

    def forward(self, *given: Any, **named: Any) -> Any:
        return super().forward(*given, **{**named, "use_cache": False})


class ReadsApart:
    """Late fusion: each encoder makes a vector, and the head is on both."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        self.encoders = AutoModel.from_config(config)
        self.classifier = Head(config.projection_dim, config.num_labels)
        self.post_init()  # type: ignore[attr-defined]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Head):
            module.start()
        else:
            super()._init_weights(module)  # type: ignore[misc]

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        seen = self.encoders.get_image_features(pixel_values=pixel_values).pooler_output
        read = self.encoders.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return SequenceClassifierOutput(logits=self.classifier(seen, read))


class Head(nn.Module):
    """Two vectors (rows, width) to a value for each class (rows, classes), as `sluice.fusion.values` has it."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(2 * width, width)
        self.out_proj = nn.Linear(width, classes)

    def start(self) -> None:
        """Weights that torch's seed decides (Glorot and Bengio 2010)."""
        for layer in (self.dense, self.out_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, seen: Tensor, read: Tensor) -> Tensor:
        even = [nn.functional.normalize(each, dim=-1) * each.shape[-1] ** 0.5 for each in (seen, read)]
        return self.out_proj(torch.tanh(self.dense(torch.cat(even, -1))))


def load_fused(
    folder: Path, asked: str, names: Sequence[str], problem_type: str
) -> tuple[Fusion, ProcessorMixin, PreTrainedModel]:
    """Processor and float32 weights of a Hugging Face model with a value for each name on top, fused as `asked`, which
    may be empty. A head of as many is kept. Raises BadInput where the architecture does not have the choice.
    """
    if not (folder / "config.json").is_file():
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.")
    about = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: place for place, name in enumerate(names)},
        "problem_type": problem_type,
    }
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        fusion = chosen(config, asked)
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        model = (_load_together if fusion == "early" else _load_apart)(folder, config, about)
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise BadInput("in/base cannot be loaded as a model of images and texts, with its processor.") from error
    processor.chat_template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    steady(model)
    return fusion, processor, model


def _load_together(folder: Path, config: PretrainedConfig, about: dict[str, Any]) -> PreTrainedModel:
    # As what it is first: transformers finds weights under older names for the classes that it knows.
    writer, info = AutoModelForImageTextToText.from_pretrained(
        folder, dtype="float32", trust_remote_code=False, output_loading_info=True
    )
    check_whole(info, folder, "lm_head.")
    text = config.get_text_config()
    for part in (config, text):  # the latter is where an engine looks
        for name, value in about.items():
            setattr(part, name, value)
    with torch.device("meta"):
        model = together(config)(config)
    model.model, model.score = writer.model, nn.Linear(text.hidden_size, config.num_labels, False)
    nn.init.normal_(model.score.weight, std=getattr(text, "initializer_range", 0.02))
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            found = weights.get_tensor(SCORE) if SCORE in set(weights.keys()) else None
            if found is not None and found.shape == model.score.weight.shape:
                model.score.weight.data = found.float()
    return model.float()


def _load_apart(folder: Path, config: PretrainedConfig, about: dict[str, Any]) -> PreTrainedModel:
    model, info = apart(config).from_pretrained(
        folder, **about, dtype="float32", trust_remote_code=False, output_loading_info=True
    )
    check_whole(info, folder, "classifier.")
    if (folder / HEAD / WEIGHTS).is_file():
        weights = load_file(folder / HEAD / WEIGHTS)
        if weights["out_proj.weight"].shape == model.classifier.out_proj.weight.shape:
            model.classifier.load_state_dict(weights)
    return model


def chosen(config: PretrainedConfig, asked: str) -> Fusion:
    """The fusion that is asked for, or the one of the base's architecture. Raises BadInput where it has the other."""
    sees = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if not sees and config.model_type not in APART:
        raise BadInput(
            f"The base is a {config.model_type}, which does not take images with texts: take a model that sees and "
            f"writes for fusion early, or one of {', '.join(APART)} for late."
        )
    if asked == "late" and sees:
        raise BadInput(
            f"fusion is late, but a {config.model_type} reads images and text as one sequence and has no encoder of "
            f"texts apart; take early, or a base of {', '.join(APART)}."
        )
    if asked == "early" and not sees:
        raise BadInput(
            f"fusion is early, but a {config.model_type} has an encoder of images and one of texts that never meet; "
            "take late, or a base that sees and writes."
        )
    return "early" if sees else "late"


def together(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of a base that sees and writes, with a head for classes in place of that for words.

    It has the name that transformers gives such classes and that engines look for.
    """
    writer = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    name = writer.__name__.removesuffix("ForConditionalGeneration") + "ForSequenceClassification"
    return type(name, (ReadsTogether, _own(writer)), {"config_class": type(config)})


def apart(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of a base with two encoders, a head for classes on both."""
    encoders = AutoModel._model_mapping[type(config)]
    name = encoders.__name__.removesuffix("Model") + "ForFusedClassification"
    return type(name, (ReadsApart, _own(encoders)), {"config_class": type(config), "base_model_prefix": "encoders"})


def _own(kind: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """What the models of an architecture have in common."""
    return next(each for each in kind.__mro__ if each.__name__.endswith("PreTrainedModel"))


def save_apart(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Writes encoders as transformers and engines know them, and the head in a folder of its own beside them."""
    model.encoders.save_pretrained(folder)
    processor.save_pretrained(folder)
    about = model.config.to_dict()
    file = folder / "config.json"
    labels = {name: about[name] for name in ("id2label", "label2id", "problem_type")}
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **labels}, indent=2, sort_keys=True), "utf-8")
    (folder / HEAD).mkdir()
    weights = {name: each.detach().float().cpu().contiguous() for name, each in model.classifier.state_dict().items()}
    save_file(weights, folder / HEAD / WEIGHTS, metadata={"format": "pt"})
