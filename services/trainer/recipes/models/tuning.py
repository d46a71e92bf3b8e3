"""What of a model is trained: an adapter or all weights, from the spec to the saved files; knows no task.

Engines serve plain LoRA beside its base, so LoRA, rsLoRA and LoRA+ are saved as adapters. What they do not serve is
merged into its base and saved as a whole model. Adapters of a base that was quantized while it was loaded are served on
the one in floats, those of a base whose files hold few bits on these.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    PeftType,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch.nn import Linear
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from services.trainer.recipes.job.failures import BadInput, RecipeError
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.models.quantization import is_quantized
from services.trainer.recipes.models.stored import SERVED_IN, as_stored, is_packed
from services.trainer.refusals import DEFAULT_ADALORA_RANK, Asked

ALL_LINEAR = "all-linear"
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "lora_plus": {},  # training.py gives it its optimizer
}
# What IA3 scales: keys, values, and what the second half of an MLP takes in. peft's own table has queries in place of
# keys for some models.
IA3_MODULES = ({"k_proj", "v_proj", "down_proj"}, {"k_proj", "v_proj", "fc2"})


def adapter_config(parameters: dict[str, Any], task_type: str = "CAUSAL_LM") -> PeftConfig | None:
    """The adapter that the parameters of a spec ask for, LoRA where they name none; None means all weights.

    `task_type` is peft's. Raises BadInput.
    """
    asked = Asked.of(parameters)
    if asked.tuner == "full":
        return None
    config = CONFIGS[asked.tuner](asked)
    config.task_type = task_type
    return config


def lora_config(asked: Asked) -> LoraConfig:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685); alpha 0 means twice the rank."""
    if asked.variant not in VARIANTS:
        raise BadInput(f"lora.variant is {asked.variant!r}; it must be one of {', '.join(filter(None, VARIANTS))}.")
    rank = int(asked.of_tuner("rank")) or 16
    return LoraConfig(
        r=rank,
        lora_alpha=asked.of_tuner("alpha") or 2 * rank,
        lora_dropout=asked.of_tuner("dropout"),
        target_modules=_targets(asked),
        **VARIANTS[asked.variant],
    )


def adalora_config(asked: Asked) -> AdaLoraConfig:
    """Zhang et al. 2023 (arXiv:2303.10512); `rank_allocation.py` sets the phases when the number of steps is known."""
    rank = int(asked.of_tuner("rank")) or DEFAULT_ADALORA_RANK
    first = int(asked.of_tuner("initial_rank")) or rank + max(1, rank // 2)
    return AdaLoraConfig(
        target_r=rank, init_r=first, lora_alpha=2 * first, total_step=1, target_modules=_targets(asked)
    )


def vera_config(asked: Asked) -> VeraConfig:
    """Kopiczko et al. 2024 (arXiv:2310.11454)."""
    return VeraConfig(r=int(asked.of_tuner("rank")) or 64, target_modules=_targets(asked))


def oft_config(asked: Asked) -> OFTConfig:
    """Qiu et al. 2023 (arXiv:2306.07280)."""
    return OFTConfig(oft_block_size=int(asked.of_tuner("block_size")) or 32, target_modules=_targets(asked))


def ia3_config(asked: Asked) -> IA3Config:
    """Liu et al. 2022 (arXiv:2205.05638); `check_targets` finds what the base calls the modules."""
    return IA3Config(target_modules=set(IA3_MODULES[0]), feedforward_modules={"down_proj"})


CONFIGS: dict[str, Callable[[Asked], PeftConfig]] = {
    "lora": lora_config,
    "adalora": adalora_config,
    "vera": vera_config,
    "oft": oft_config,
    "ia3": ia3_config,
}


def _targets(asked: Asked) -> list[str] | str:
    return list(asked.settings.get("target_modules") or []) or ALL_LINEAR


def check_targets(model: PreTrainedModel, adapter: PeftConfig) -> None:
    """Raises BadInput where a module that the adapter shall change is not in the model, or not of a size for it."""
    names = {name for name, _ in model.named_modules()}
    leaves = {name.rsplit(".", 1)[-1] for name in names}
    if isinstance(adapter, IA3Config):
        found = next((some for some in IA3_MODULES if some <= leaves), None)
        if found is None:
            raise BadInput("The base model has no modules that IA3 can scale (k_proj, v_proj, down_proj); take lora.")
        adapter.target_modules, adapter.feedforward_modules = set(found), found - {"k_proj", "v_proj"}
    elif adapter.target_modules != ALL_LINEAR:
        for target in sorted(adapter.target_modules):
            if not any(name == target or name.endswith("." + target) for name in names):
                raise BadInput(f"The base model has no module {target!r}; leave target_modules empty for all linear.")
    if isinstance(adapter, OFTConfig):
        _check_blocks(model, adapter)


def _check_blocks(model: PreTrainedModel, adapter: OFTConfig) -> None:
    """peft would take another block size for what this one does not divide."""
    size, head = adapter.oft_block_size, model.get_output_embeddings()
    for name, module in model.named_modules():
        named = adapter.target_modules == ALL_LINEAR or name.endswith(tuple(adapter.target_modules))
        if named and isinstance(module, Linear) and module is not head and module.in_features % size:
            raise BadInput(
                f"oft.block_size {size} does not divide the {module.in_features} inputs of {name}; "
                "choose one that does, or name other target_modules."
            )


def save(job: JobDir, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Write `out/model/`, a plain LoRA adapter or whole weights with the tokenizer; returns the artifact's kind.

    An adapter that no engine serves is merged, in `model` itself unless that is quantized: what `model` answers
    afterwards is what the files answer. For a quantized one, `as_saved` is what they answer.
    """
    out = job.fresh_out()
    if isinstance(model, PeftModel):
        if is_plain_lora(model):
            return _save_adapter(job, model)
        if is_packed(model):
            raise RecipeError("Nothing can be merged into weights of few bits, so this adapter could not be served.")
        model = (_on_floats(job, model) if is_quantized(model) else model).merge_and_unload()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return "full"


def is_plain_lora(model: PeftModel) -> bool:
    """Whether an engine serves the adapter as it is, beside the base as it is."""
    config = model.peft_config["default"]
    if config.peft_type != PeftType.LORA or config.use_dora or config.modules_to_save:
        return False
    return not isinstance(config.init_lora_weights, str)  # PiSSA and OLoRA changed the base


def as_saved(job: JobDir, model: PeftModel) -> PreTrainedModel | PeftModel:
    """The weights that `save` left, read from the files, on a CPU: a model by itself or an adapter on its float base,
    or on its base of few bits in the dtype that it is served in.

    `model` tells of what class it is.
    """
    if is_packed(model):
        base = as_stored(type(model.get_base_model()), job.base, SERVED_IN)
        return PeftModel.from_pretrained(base, job.out_model).to(base.dtype).eval()
    if (job.out_model / "adapter_config.json").is_file():
        found = PeftModel.from_pretrained(_float_base(job, model), job.out_model)
    else:
        found = type(model.get_base_model()).from_pretrained(job.out_model, dtype="float32", trust_remote_code=False)
    return found.eval()


def _save_adapter(job: JobDir, model: PeftModel) -> str:
    # The folder the base lies in means nothing elsewhere; the registry's lineage says which model it is.
    model.peft_config["default"].base_model_name_or_path = "base"
    model.save_pretrained(job.out_model, save_embedding_layers=False)
    (job.out_model / "README.md").unlink(missing_ok=True)  # peft's model card: empty headings
    file = job.out_model / "adapter_config.json"
    config = json.loads(file.read_text("utf-8"))
    config["target_modules"] = sorted(config["target_modules"])  # a set in peft: another order each time
    file.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
    return "adapter"


def _on_floats(job: JobDir, model: PeftModel) -> PeftModel:
    """The adapter of a quantized model on its base in floats."""
    found = get_peft_model(_float_base(job, model), deepcopy(model.peft_config["default"]))
    set_peft_model_state_dict(found, {k: v.cpu() for k, v in get_peft_model_state_dict(model).items()})
    return found


def _float_base(job: JobDir, model: PeftModel) -> PreTrainedModel:
    base = model.get_base_model()
    config = deepcopy(base.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return type(base).from_pretrained(job.base, config=config, dtype="float32", trust_remote_code=False)
