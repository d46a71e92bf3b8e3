"""A training job from a handful of words; it fills in nothing that the recipe decides better itself.

Pure: what is absent here is absent in the spec, and the recipe's default holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypedDict, get_type_hints

from kit.rpc.errors import Invalid
from sluice.client import files, names
from sluice.trainer import v1 as trainer

#: What people may write in a file for a field of the contract.
SHORT = {"dataset": "dataset_version", "base": "base_model_version"}
RECIPES = tuple(field.name for field in trainer.TrainingJobSpec.DESCRIPTOR.oneofs_by_name["recipe"].fields)
OPTIMIZATION = (
    "learning_rate",
    "batch_size",
    "gradient_accumulation_steps",
    "max_steps",
    "epochs",
    "warmup_ratio",
    "weight_decay",
)
SHAPE = ("hidden_size", "layers", "heads", "kv_heads", "vocab_size", "max_position_embeddings")
LORA = ("lora_rank", "lora_alpha", "lora_dropout")
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
    """What a recipe can be told. Every one may be left out."""

    tuner: Literal["lora", "full"]
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    learning_rate: float
    batch_size: int
    gradient_accumulation_steps: int
    max_steps: int
    epochs: float
    warmup_ratio: float
    weight_decay: float
    max_length: int
    checkpoint_every_steps: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    vocab_size: int
    max_position_embeddings: int


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
    return spec


def fill_recipe(spec: trainer.TrainingJobSpec, recipe: str, hyperparameters: dict[str, object]) -> None:
    """Puts the recipe and what it is told into a spec, over what stands there already."""
    given = {key: value for key, value in hyperparameters.items() if value is not None}
    _refuse_unknown(recipe, given)
    chosen = getattr(spec, recipe)
    chosen.SetInParent()
    for key in OPTIMIZATION:
        if key in given:
            setattr(chosen.optimization, key, given[key])
    for key in ("max_length", "checkpoint_every_steps"):
        if key in given:
            setattr(chosen, key, given[key])
    if recipe == "pretrain":
        _fill_shape(spec.pretrain, given)
    else:
        _fill_tuner(spec.sft, given)


def _fill_shape(recipe: trainer.PretrainRecipe, given: dict[str, object]) -> None:
    if not any(key in given for key in SHAPE):
        return
    for key in SHAPE:
        value = given.get(key) or getattr(recipe.shape, key) or DEFAULT_SHAPE[key]
        setattr(recipe.shape, key, value)


def _fill_tuner(recipe: trainer.SftRecipe, given: dict[str, object]) -> None:
    if given.get("tuner") == "full":
        recipe.full.SetInParent()
    elif given.get("tuner") == "lora" or any(key in given for key in LORA):
        recipe.lora.rank = recipe.lora.rank or 16  # the contract wants a rank wherever there is a tuner
        for key in LORA:
            if key in given:
                setattr(recipe.lora, key.removeprefix("lora_"), given[key])


def _refuse_unknown(recipe: str, given: dict[str, object]) -> None:
    if recipe not in RECIPES:
        raise Invalid(f"there is no recipe `{recipe}`; take one of {', '.join(RECIPES)}")
    known = set(get_type_hints(Hyperparameters))
    foreign = set(SHAPE) if recipe == "sft" else {"tuner", *LORA}
    if given.get("tuner") == "full":
        foreign |= set(LORA)
    if strange := sorted(given.keys() - known):
        raise Invalid(f"there is no hyperparameter `{strange[0]}`; there are {', '.join(sorted(known))}")
    if wrong := sorted(given.keys() & foreign):
        what = "full fine-tuning" if given.get("tuner") == "full" else f"the recipe `{recipe}`"
        raise Invalid(f"{what} takes no {wrong[0].replace('_', '-')}; leave it out")


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
    for field in ("dataset_version", "model", "task_type"):
        if not getattr(spec, field):
            raise Invalid(f"`{path}` has no `{field}`; add it, or give it as a flag")
    return spec
