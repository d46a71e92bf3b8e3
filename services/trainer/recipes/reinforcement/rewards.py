"""Rewards for what a model says, by rules over the row, a judge or a reward model, weighed and added; it knows no
trainer and, before a reward model is loaded, no torch.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.trainer.recipes.data.rows import Message
from services.trainer.recipes.job.failures import BadInput, Diverged
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.reinforcement.judge import Judge

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Said:
    """What a model said to a prompt; `reference` is the answer that the row has."""

    prompt: list[Message]
    reference: str
    text: str


@dataclass(frozen=True)
class Part:
    """One part of a reward. `score` gives a number for each answer."""

    name: str
    weight: float
    score: Callable[[Sequence[Said]], list[float]]


@dataclass(frozen=True)
class Rewards:
    """The parts of a reward; called, it gives their weighted sum for each answer. Raises Diverged for what is no
    finite number.
    """

    parts: list[Part]

    def __call__(self, several: Sequence[Said]) -> list[float]:
        total = [0.0] * len(several)
        for part in self.parts:
            total = [sofar + part.weight * each for sofar, each in zip(total, part.score(several), strict=True)]
            if not all(map(math.isfinite, total)):
                raise Diverged(f"The reward by {part.name} is no longer a finite number.")
        return total


def rewards_of(job: JobDir, parameters: Mapping[str, Any], longest: int) -> Rewards:
    """What the spec asks for; `longest` are the tokens of the longest prompt with its answer. Raises BadInput."""
    parts = [_part(job, each) for each in parameters.get("rewards") or []]
    if parameters.get("reward_model_version"):
        from services.trainer.recipes.reinforcement.reward_model import RewardModel

        weight = parameters.get("reward_model_weight")
        model = RewardModel.load(job, longest)
        score = lambda several: model.scores([[*s.prompt, {"role": "assistant", "content": s.text}] for s in several])  # noqa: E731
        parts.append(Part("reward_model", 1.0 if weight is None else float(weight), score))
    if not parts:
        raise BadInput("The spec names no reward; give rewards, or a reward_model_version.")
    return Rewards(parts)


def _part(job: JobDir, given: Mapping[str, Any]) -> Part:
    names = [name for name in given if name != "weight"]
    if len(names) != 1 or names[0] not in (*RULES, "judge"):
        raise BadInput(f"Each of rewards has a weight and one of {', '.join((*RULES, 'judge'))}.")
    (name,), weight = names, float(given.get("weight", 1.0))
    if name == "judge":
        judge = Judge(job, **given[name])
        return Part(name, weight, lambda several: judge.grades([(s.prompt, s.text) for s in several]))
    rule = RULES[name](given[name])
    return Part(name, weight, lambda several: [float(rule(s.text, s.reference)) for s in several])


#: Whether an answer, the first text, satisfies what is asked; the second is the row's own.
Rule = Callable[[str, str], bool]


def exact_match(_: Mapping[str, Any]) -> Rule:
    """Equality after NFKC (Unicode Annex 15) and with runs of white space as one space, as the evaluator has it."""
    return lambda text, reference: _normal(text) == _normal(reference)


def contains(asked: Mapping[str, Any]) -> Rule:
    """Whether a text, the row's own where none is named, is in the answer, up to case."""
    named = str(asked.get("text") or "")
    return lambda text, reference: _normal(named or reference).casefold() in _normal(text).casefold()


def number_equal(asked: Mapping[str, Any]) -> Rule:
    """Whether the last numbers of both are the same; false where one has none."""
    tolerance = float(asked.get("tolerance") or 0.0)

    def rule(text: str, reference: str) -> bool:
        said, wanted = last_number(text), last_number(reference)
        return said is not None and wanted is not None and abs(said - wanted) <= tolerance

    return rule


def pattern(asked: Mapping[str, Any]) -> Rule:
    """Whether a regular expression is found. Raises BadInput for what is none."""
    try:
        search = re.compile(str(asked.get("regex", ""))).search
    except re.error as error:
        raise BadInput(f"The regex of a reward is no regular expression: {error}.") from error
    return lambda text, _: search(text) is not None


def valid_json(asked: Mapping[str, Any]) -> Rule:
    """Whether it is JSON (RFC 8259), with these members."""
    members = set(asked.get("members") or ())

    def rule(text: str, _: str) -> bool:
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        return not members or (isinstance(value, dict) and members <= value.keys())

    return rule


def length(asked: Mapping[str, Any]) -> Rule:
    """Whether it has as many characters."""
    least, most = int(asked.get("at_least") or 0), int(asked.get("at_most") or 0) or math.inf
    return lambda text, _: least <= len(text) <= most


RULES: dict[str, Callable[[Mapping[str, Any]], Rule]] = {
    "exact_match": exact_match,
    "contains": contains,
    "number_equal": number_equal,
    "pattern": pattern,
    "valid_json": valid_json,
    "length": length,
}


def last_number(text: str) -> float | None:
    """The last number in a text, `1,000.5` and `-2e3` among them; None where there is none."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
