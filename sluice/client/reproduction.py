"""Two runs of one training job side by side: the same weights, or losses how far apart; it asks no service."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

#: How far the losses of a step may lie apart, in nats.
TOLERANCE = 0.001
#: What of the environment a run may depend on, and what it is called.
MACHINE = {
    "cpu": "processor",
    "cores": "number of cores",
    "threads": "number of threads",
    "accelerators": "accelerators",
    "python": "Python",
    "commit": "commit of Sluice",
}


@dataclass(frozen=True)
class Comparison:
    """What came of a job and of its repetition.

    ``steps`` is how many both took; ``largest`` the largest difference of their losses, at step ``at``, and not a
    number where it cannot be told. ``differences`` are sentences on what was not the same about the runs themselves.
    """

    first: str
    again: str
    bit_identical: bool
    steps: int
    largest: float
    at: int
    tolerance: float
    differences: tuple[str, ...]
    failure: str = ""

    @property
    def reproduced(self) -> bool:
        """Whether the weights are the same to the bit, or all losses within the tolerance."""
        return not self.failure and (self.bit_identical or self.largest <= self.tolerance)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.failure:
            return f"not reproduced: {self.failure}"
        if self.bit_identical:
            return "bit-identical: the weights have the same digest"
        if math.isnan(self.largest):
            return f"not reproduced: the weights differ, and losses cannot be compared over {self.steps} common steps"
        said = "reproduced within" if self.reproduced else "not reproduced: beyond"
        apart = f"the losses of {self.steps} steps are at most {self.largest:.3g} apart, at step {self.at}"
        return f"{said} the tolerance of {self.tolerance:g}; the weights differ, and {apart}"


def compare(
    first: trainer.TrainingJob,
    again: trainer.TrainingJob,
    first_steps: Iterable[trainer.TrainingStep],
    again_steps: Iterable[trainer.TrainingStep],
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Compares two jobs that are over; losses only count where both took the very same steps."""
    before, after = _losses(first_steps), _losses(again_steps)
    common = sorted(before.keys() & after.keys())
    apart = {step: abs(before[step] - after[step]) for step in common}
    at = max(apart, key=apart.__getitem__, default=0)
    whole = bool(common) and before.keys() == after.keys()
    failure = ""
    if again.state != types.JOB_STATE_SUCCEEDED:
        state = types.JobState.Name(again.state).removeprefix("JOB_STATE_")
        failure = f"it ended as {state}" + (f": {again.failure.message}" if again.failure.message else "")
    return Comparison(
        first=first.name,
        again=again.name,
        bit_identical=bool(first.result.artifact.digest)
        and first.result.artifact.digest == again.result.artifact.digest,
        steps=len(common),
        largest=apart[at] if whole else math.nan,
        at=at,
        tolerance=tolerance,
        differences=() if failure else tuple(_differences(first, again)),
        failure=failure,
    )


def _losses(steps: Iterable[trainer.TrainingStep]) -> dict[int, float]:
    return {each.step: each.figures["loss"] for each in steps if not each.evaluation and "loss" in each.figures}


def _differences(first: trainer.TrainingJob, again: trainer.TrainingJob) -> Iterable[str]:
    one, other = first.result, again.result
    if first.spec != again.spec:
        yield "another spec"
    if one.dataset_digest != other.dataset_digest:
        yield "other rows"
    if one.base_digest != other.base_digest:
        yield "another base model"
    if not one.packages or not other.packages:
        yield "a lock that is not known: one of the two ran before results recorded it"
        return
    if changed := _changed(one.settings, other.settings):
        yield f"other settings: {', '.join(changed)}"
    if packages := _changed(_versions(one), _versions(other)):
        named = ", ".join(packages[:3]) + (" and more" if len(packages) > 3 else "")
        yield f"another lock: {len(packages)} {'package differs' if len(packages) == 1 else 'packages differ'}, {named}"
    for name in _changed(one.environment, other.environment):
        if name in MACHINE:
            was, now = (each.environment.get(name, "unknown") for each in (one, other))
            yield f"another {MACHINE[name]}: {was} then, {now} now"


def _versions(result: trainer.TrainingResult) -> dict[str, str]:
    return dict(each.partition("==")[::2] for each in result.packages)


def _changed(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
