"""A training job from a handful of words; it fills in nothing that the recipe decides better itself.

Pure: what is absent here is absent in the spec, and the recipe's default holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Required, TypedDict, get_type_hints

from google.protobuf.message import Message

from kit.rpc.errors import Invalid
from sluice.client import files, names
from sluice.client.rewards import rewards
from sluice.trainer import v1 as trainer

#: What people may write in a file for a field of the contract.
SHORT = {"dataset": "dataset_version", "base": "base_model_version"}
RECIPES = tuple(field.name for field in trainer.TrainingJobSpec.DESCRIPTOR.oneofs_by_name["recipe"].fields)
TUNERS = tuple(field.name for field in trainer.TrainingJobSpec.DESCRIPTOR.oneofs_by_name["tuner"].fields)
OPTIMIZATION = tuple(field.name for field in trainer.Optimization.DESCRIPTOR.fields)
SHARED = ("max_length", "precision", "checkpoint_every_steps")
PERFORMANCE = tuple(field.name for field in trainer.Performance.DESCRIPTOR.fields)
DISTRIBUTION = tuple(field.name for field in trainer.Distribution.DESCRIPTOR.fields)
SHAPE = tuple(field.name for field in trainer.ModelShape.DESCRIPTOR.fields)
#: The one field of recipes that is a list of messages.
REWARDS = "rewards"
#: LoRA with its base in 4 bits, by the name that people know it under.
QLORA = "qlora"


def _settings_of(tuner: str) -> dict[str, str]:
    """The fields of a tuner by the flat names under which a job is told them: `vera_rank`, `target_modules`."""
    fields = getattr(trainer.TrainingJobSpec(), tuner).DESCRIPTOR.fields
    alone = ("target_modules", "quantization")
    return {field.name if field.name in alone else f"{tuner}_{field.name}": field.name for field in fields}


#: What each tuner can be told.
SETTINGS = {tuner: _settings_of(tuner) for tuner in TUNERS}
OF_TUNERS = frozenset(name for settings in SETTINGS.values() for name in settings)
#: What a shape has where only some of it is given; the contract wants a shape whole or absent.
DEFAULT_SHAPE = {
    "hidden_size": 192,
    "layers": 2,
    "heads": 4,
    "kv_heads": 0,
    "vocab_size": 2048,
    "max_position_embeddings": 512,
}


class Hyperparameters(TypedDict, total=False):
    """What a job can be told beside its names. Every one may be left out."""

    tuner: Literal["lora", "qlora", "full", "adalora", "vera", "oft", "ia3"]
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    lora_variant: Literal["rslora", "dora", "pissa", "olora", "lora_plus"]
    lora_learning_rate_ratio: float
    quantization: Literal["nf4", "int8"]
    adalora_rank: int
    adalora_initial_rank: int
    vera_rank: int
    oft_block_size: int
    target_modules: Sequence[str]
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "galore", "apollo", "lomo", "q_galore"]
    learning_rate: float
    batch_size: int
    gradient_accumulation_steps: int
    max_steps: int
    epochs: float
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    schedule: Literal["cosine", "linear", "constant"]
    devices: int
    nodes: int
    sharding: Literal["ddp", "zero1", "zero2", "zero3", "fsdp"]
    offload_optimizer: bool
    offload_weights: bool
    tensor_parallel_size: int
    pipeline_parallel_size: int
    sequence_parallel_size: int
    max_length: int
    precision: Literal["float32", "bfloat16"]
    checkpoint_every_steps: int
    packing: bool
    padding_free: bool
    group_by_length: bool
    gradient_checkpointing: bool
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"]
    loss_chunk_tokens: int
    use_liger_kernel: bool
    torch_compile: bool
    dataloader_num_workers: int
    dataloader_pin_memory: bool
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    vocab_size: int
    max_position_embeddings: int
    beta: float
    gamma: float
    label_smoothing: float
    likelihood_weight: float
    desirable_weight: float
    undesirable_weight: float
    center_coefficient: float
    pooling_method: Literal["cls", "mean", "lasttoken"]
    normalize_embeddings: bool
    temperature: float
    matryoshka_sizes: list[int]
    mini_batch_size: int
    negatives: int
    label_names: list[str]
    multi_label: bool
    balance_classes: bool
    teacher_model_version: str
    lmbda: float
    max_new_tokens: int
    seq_kd: bool
    rewards: str | Sequence[str | Mapping[str, object] | trainer.Reward]
    reward_model_version: str
    reward_model_weight: float
    group_size: int
    clip_range: float
    value_clip_range: float
    value_weight: float
    gae_lambda: float
    updates_per_rollout: int
    scale_rewards: bool
    fusion: Literal["early", "late"]
    train_vision_tower: bool
    train_audio_tower: bool
    train_projector: bool


class Wanted(Hyperparameters, total=False):
    """What a spec is made of beside its rows and their task type."""

    model: Required[str]
    base: str
    endpoint: str
    gate_policy: str
    seed: int


def training_spec(
    parent: str,
    *,
    dataset: str,
    model: str,
    task_type: str,
    base: str = "",
    endpoint: str = "",
    gate_policy: str = "",
    seed: int = 0,
    recipe: str = "",
    **hyperparameters: object,
) -> trainer.TrainingJobSpec:
    """The spec for a job in project ``parent``; ``dataset`` and ``base`` are short or full names.

    ``recipe`` is that of the task type where it is empty. Raises Invalid naming a hyperparameter that the
    recipe does not have.
    """
    spec = trainer.TrainingJobSpec(
        task_type=task_type,
        dataset_version=names.dataset_version(parent, dataset),
        base_model_version=names.model_version(parent, base) if base else "",
        model=names.short(names.model(parent, model)),
        endpoint=endpoint,
        gate_policy=gate_policy,
        seed=seed,
    )
    fill_recipe(spec, recipe or task_type, hyperparameters)
    expand_models(spec, parent)
    return spec


def expand_models(spec: trainer.TrainingJobSpec, parent: str) -> None:
    """Short names of models that a recipe reads beside the base, such as a teacher, become full ones."""
    chosen = getattr(spec, str(spec.WhichOneof("recipe")))
    for field, value in chosen.ListFields():
        if field.name.endswith("_model_version"):
            setattr(chosen, field.name, names.model_version(parent, value))


def fill_recipe(spec: trainer.TrainingJobSpec, recipe: str, hyperparameters: dict[str, object]) -> None:
    """Puts the recipe and what the job is told into a spec, over what stands there already."""
    given = {key: value for key, value in hyperparameters.items() if value is not None}
    _refuse_unknown(recipe, given)
    chosen = getattr(spec, recipe)
    chosen.SetInParent()
    for key in OPTIMIZATION:
        _put(spec.optimization, key, given)
    for key in SHARED:
        _put(spec, key, given)
    for key in PERFORMANCE:
        _put(spec.performance, key, given)
    for key in DISTRIBUTION:
        _put(spec.distribution, key, given)
    for key in _own(recipe):
        _put(chosen, key, given)
    if recipe == "pretrain":
        _fill_shape(spec.pretrain, given)
    else:
        _fill_tuner(spec, given)


def _own(recipe: str) -> list[str]:
    """The numbers and words that a recipe alone can be told."""
    fields = getattr(trainer.TrainingJobSpec(), recipe).DESCRIPTOR.fields
    return [field.name for field in fields if field.message_type is None or field.name == REWARDS]


def _put(message: Message, field: str, given: Mapping[str, object], key: str = "") -> None:
    """Sets a field to what is given under its name or ``key``; a word of an enum stands without its prefix."""
    key = key or field
    if key not in given:
        return
    value, described = given[key], message.DESCRIPTOR.fields_by_name[field]
    if field == REWARDS:
        message.ClearField(field)
        getattr(message, field).extend(rewards(value))
        return
    if described.is_repeated:
        message.ClearField(field)
        getattr(message, field).extend(_listed(value, key, str if described.type == described.TYPE_STRING else int))
        return
    if described.enum_type is not None:
        prefix = described.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        known = {each.name.removeprefix(prefix).lower(): each.number for each in described.enum_type.values[1:]}
        if value not in known:
            raise Invalid(f"{key.replace('_', '-')} is `{value}`; take one of {', '.join(known)}")
        value = known[str(value)]
    if described.type == described.TYPE_BOOL and isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    try:
        setattr(message, field, value)
    except TypeError:
        wanted = {described.TYPE_BOOL: "true or false", described.TYPE_STRING: "a word"}.get(described.type, "a number")
        raise Invalid(f"{key.replace('_', '-')} is `{value}`; take {wanted}") from None


def _listed(value: object, key: str, kind: type[str] | type[int]) -> list[str] | list[int]:
    """What is given apart, alone, or with commas between."""
    each = value if isinstance(value, list | tuple) else str(value).split(",")
    try:
        return [kind(str(one).strip()) for one in each]  # type: ignore[return-value]
    except ValueError:
        raise Invalid(f"{key.replace('_', '-')} is `{value}`; take whole numbers with commas between") from None


def _fill_shape(recipe: trainer.PretrainRecipe, given: dict[str, object]) -> None:
    if not any(key in given for key in SHAPE):
        return
    for key in SHAPE:
        value = given.get(key) or getattr(recipe.shape, key) or DEFAULT_SHAPE[key]
        setattr(recipe.shape, key, value)


def _fill_tuner(spec: trainer.TrainingJobSpec, given: dict[str, object]) -> None:
    tuner = _tuner(spec, given)
    if not tuner:
        return
    if wrong := sorted((given.keys() & OF_TUNERS) - SETTINGS[tuner].keys()):
        what = "full fine-tuning" if tuner == "full" else f"the tuner `{tuner}`"
        raise Invalid(f"{what} takes no {wrong[0].replace('_', '-')}; leave it out")
    if given.get("tuner") == QLORA:
        given = {"quantization": "nf4", **given}
    chosen = getattr(spec, tuner)
    chosen.SetInParent()
    if tuner == "lora":
        chosen.rank = chosen.rank or 16  # the contract wants a rank wherever there is a LoRA
    for key, field in SETTINGS[tuner].items():
        _put(chosen, field, given, key)


def _tuner(spec: trainer.TrainingJobSpec, given: Mapping[str, object]) -> str:
    """The tuner that is named, or whose settings are given; empty where neither is."""
    named = str(given.get("tuner") or "")
    if named and named not in (*TUNERS, QLORA):
        raise Invalid(f"there is no tuner `{named}`; take one of {', '.join((*TUNERS, QLORA))}")
    if named:
        return "lora" if named == QLORA else named
    standing = spec.WhichOneof("tuner")
    told = [tuner for tuner in TUNERS if given.keys() & SETTINGS[tuner].keys()]
    return str(standing) if standing in told else next(iter(told), "")


def _refuse_unknown(recipe: str, given: dict[str, object]) -> None:
    if recipe not in RECIPES:
        raise Invalid(f"there is no recipe `{recipe}`; take one of {', '.join(RECIPES)}")
    known = set(get_type_hints(Hyperparameters))
    if strange := sorted(given.keys() - known):
        raise Invalid(f"there is no hyperparameter `{strange[0]}`; there are {', '.join(sorted(known))}")
    usual = {*OPTIMIZATION, *SHARED, *PERFORMANCE, *DISTRIBUTION, *_own(recipe)}
    usual |= {*(SHAPE if recipe == "pretrain" else ("tuner", *OF_TUNERS))}
    if wrong := sorted(given.keys() - usual):
        raise Invalid(f"the recipe `{recipe}` takes no {wrong[0].replace('_', '-')}; leave it out")


def read_spec(path: Path, parent: str, over: Mapping[str, str]) -> trainer.TrainingJobSpec:
    """A spec from a YAML file with the fields of the contract; `dataset` and `base` may be short names.

    What ``over`` gives wins over the file. Raises Invalid naming the file and the field.
    """
    found = files.fields(path, "TrainingJobSpec")
    values = {SHORT.get(key, key): value for key, value in found.items()}
    values |= {SHORT.get(key, key): value for key, value in over.items() if value}
    spec = files.parse(path, values, trainer.TrainingJobSpec())
    for field, expand in (("dataset_version", names.dataset_version), ("base_model_version", names.model_version)):
        if getattr(spec, field):
            setattr(spec, field, expand(parent, getattr(spec, field)))
    if spec.WhichOneof("recipe"):
        expand_models(spec, parent)
    for field in ("dataset_version", "model", "task_type"):
        if not getattr(spec, field):
            raise Invalid(f"`{path}` has no `{field}`; add it, or give it as a flag")
    return spec
