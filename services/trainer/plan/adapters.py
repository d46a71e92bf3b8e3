"""How many numbers each tuner trains in a model, as peft builds it; knows no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from services.trainer.plan.architecture import Architecture
from services.trainer.plan.fields import Linear, UnplannableError, numbers
from services.trainer.refusals import DEFAULT_ADALORA_RANK, Asked

#: What each tuner has where the spec does not tell; as in recipes/models/tuning.py.
DEFAULT_RANK, DEFAULT_VERA_RANK, DEFAULT_OFT_BLOCK = 16, 64, 32
SCALED = ("k_proj", "v_proj", "down_proj")
#: What an encoder has and its vectors are not made of: frozen by recipes/learning/contrastive.py.
POOLER = "pooler.dense"


def trained(model: Architecture, asked: Asked) -> int:
    """Numbers that are trained: all of them, or an adapter's and those of a new head of classes.

    Raises UnplannableError for modules that the model does not have.
    """
    if asked.tuner == "full":
        return model.parameters - _left_alone(model, asked)
    head = model.head if model.head_kind in ("classes", "tags") else 0
    reached = [each for each in chosen(model, asked) if not _unreached(model, each)]
    return head + _COUNTS[asked.tuner](asked, reached)


def fixed(model: Architecture, asked: Asked) -> int:
    """Numbers that an adapter adds and does not train: the two matrices that VeRA's modules share."""
    if asked.tuner != "vera":
        return 0
    modules = chosen(model, asked)
    widest = max(each.inputs for each in modules) + max(each.outputs for each in modules)
    return (int(asked.of_tuner("rank")) or DEFAULT_VERA_RANK) * widest


def chosen(model: Architecture, asked: Asked) -> list[Linear]:
    """The matrices that an adapter changes; without names all of the layers'. Raises UnplannableError."""
    names: Iterable[str] = asked.settings.get("target_modules") or ()
    if asked.tuner == "ia3":
        names = SCALED
    linears = [*model.linears, *_of_sight(model, asked)]
    if not names:
        return linears
    found: dict[str, Linear] = {}
    for name in names:
        hits = [each for each in linears if each.name == name or each.name.endswith("." + name)]
        if not hits:
            known = ", ".join(each.name for each in linears)
            raise UnplannableError("target_modules", f"name `{name}`, and the layers of {model.kind} have {known}")
        found |= {each.name: each for each in hits}
    return list(found.values())


def _left_alone(model: Architecture, asked: Asked) -> int:
    """Numbers that vectors are not made of, and of the vision tower and the projector where they are not asked for."""
    unreached = numbers(each for each in model.linears if _unreached(model, each))
    sight = model.sight
    if sight is None:
        return unreached
    tower, projector = asked.own.get("train_vision_tower"), asked.own.get("train_projector")
    return unreached + (0 if tower else sight.tower) + (0 if projector else sight.projector)


def _unreached(model: Architecture, linear: Linear) -> bool:
    """Whether no gradient comes to a matrix: a model without a head makes vectors of tokens."""
    return model.head_kind == "none" and linear.name == POOLER


def _of_sight(model: Architecture, asked: Asked) -> list[Linear]:
    """The matrices of the vision tower and the projector that an adapter changes too."""
    sight = model.sight
    if sight is None:
        return []
    tower = sight.linears if asked.own.get("train_vision_tower") else ()
    return [*tower, *(sight.of_projector if asked.own.get("train_projector") else ())]


def _lora(asked: Asked, modules: list[Linear]) -> int:
    rank = int(asked.of_tuner("rank")) or DEFAULT_RANK
    magnitudes = 1 if asked.variant == "dora" else 0
    return sum(m.count * (rank * (m.inputs + m.outputs) + magnitudes * m.outputs) for m in modules)


def _adalora(asked: Asked, modules: list[Linear]) -> int:
    rank = int(asked.of_tuner("rank")) or DEFAULT_ADALORA_RANK
    first = int(asked.of_tuner("initial_rank")) or rank + max(1, rank // 2)
    return sum(m.count * first * (m.inputs + m.outputs + 1) for m in modules)


def _vera(asked: Asked, modules: list[Linear]) -> int:
    rank = int(asked.of_tuner("rank")) or DEFAULT_VERA_RANK
    return sum(m.count * (rank + m.outputs) for m in modules)


def _oft(asked: Asked, modules: list[Linear]) -> int:
    block = int(asked.of_tuner("block_size")) or DEFAULT_OFT_BLOCK
    return sum(m.count * (m.inputs // block) * (block * (block - 1) // 2) for m in modules)


def _ia3(asked: Asked, modules: list[Linear]) -> int:
    return sum(m.count * (m.inputs if m.name == "down_proj" else m.outputs) for m in modules)


_COUNTS: dict[str, Callable[[Asked, list[Linear]], int]] = {
    "lora": _lora,
    "adalora": _adalora,
    "vera": _vera,
    "oft": _oft,
    "ia3": _ia3,
}
