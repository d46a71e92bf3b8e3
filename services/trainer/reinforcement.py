"""What a job that learns from rewards asks for and cannot have; pure, it knows neither torch nor a service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from services.trainer.refusals import Asked

#: The answers of a step, and those to one prompt, where a spec does not say how many.
BATCH_SIZE = 32
GROUP_SIZES = {"grpo": 8, "rloo": 4}
RECIPES = ("ppo", *GROUP_SIZES)


def wrong(asked: Asked) -> Iterator[tuple[str, str]]:
    """The field of what cannot be done, and why not and what to do; nothing for other recipes."""
    recipe, own = asked.recipe, asked.own
    if recipe not in RECIPES:
        return
    yield from _of_rewards(recipe, own)
    if (group := int(own.get("group_size") or GROUP_SIZES.get(recipe, 0))) == 1:
        yield f"{recipe}.group_size", "is 1, and an answer counts by how it compares with others; take 2 or more"
    elif group:
        of_step = int(asked.of_optimization("batch_size") or BATCH_SIZE)
        of_step *= int(asked.of_optimization("gradient_accumulation_steps") or 1)
        if of_step % group:
            yield (
                f"{recipe}.group_size",
                f"is {group}, which does not divide the {of_step} answers of a step "
                "(batch_size × gradient_accumulation_steps); change one of them",
            )
    if asked.of_tuner("dropout") > 0:
        yield (
            "lora.dropout",
            f"is given, but {recipe} compares the probabilities of what it said with those when it said it, and "
            "dropout changes them; leave it out",
        )


def _of_rewards(recipe: str, own: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    rewards, model = list(own.get("rewards") or ()), own.get("reward_model_version")
    if not rewards and not model:
        yield f"{recipe}.rewards", "is empty, and there is no reward_model_version either; name at least one of them"
    if not model and own.get("reward_model_weight") is not None:
        yield f"{recipe}.reward_model_weight", "is given, but no reward_model_version; name one, or leave it out"
    for place, each in enumerate(rewards):
        field = f"{recipe}.rewards[{place}]"
        if (regex := (each.get("pattern") or {}).get("regex")) is not None and not _is_regex(regex):
            yield f"{field}.pattern.regex", "is no regular expression of Python's `re`; correct it"
        length = each.get("length") or {}
        if int(length.get("at_most") or 0) and int(length["at_most"]) < int(length.get("at_least") or 0):
            yield f"{field}.length.at_most", "is below at_least, so no answer would do; correct one of them"
        if "length" in each and not any(length.values()):
            yield f"{field}.length", "has neither at_least nor at_most, so every answer would do; give one of them"


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
