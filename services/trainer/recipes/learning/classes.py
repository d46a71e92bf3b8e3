"""What recipes that name classes share: the classes, their loss and how they were told; knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import EvalPrediction, TrainerCallback

from services.trainer.recipes.data.rows import Classified
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir

GRADES = ("accuracy", "macro_f1", "micro_f1")
#: The place of a class, or a 1 for each that a row has.
Target = int | list[float]
#: With more classes the matrix of which was taken for which is longer than anybody reads.
MAX_CONFUSED = 64


@dataclass(frozen=True)
class Classes:
    """The classes in their order, and whether a text may have several of them or none."""

    names: list[str]
    several: bool

    @classmethod
    def of(cls, rows: Sequence[Classified], parameters: dict[str, Any]) -> "Classes":
        """What the parameters say, else what the rows show. Raises BadInput where there is nothing to tell apart."""
        names = list(parameters.get("label_names") or sorted({label for row in rows for label in row.labels}))
        several = parameters.get("multi_label")
        if several is None:
            several = any(len(row.labels) != 1 for row in rows)
        if len(names) < (1 if several else 2):
            raise BadInput(f"There are {len(names)} classes; give rows of two at least, or label_names.")
        return cls(names, bool(several))

    @property
    def problem_type(self) -> str:
        """What transformers and engines call it: it tells them to take a softmax, or a sigmoid of each."""
        return "multi_label_classification" if self.several else "single_label_classification"

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each class stands."""
        return {name: place for place, name in enumerate(self.names)}

    def target(self, row: Classified) -> Target:
        """The place of the class, or a 1 for each that a text has. Raises BadInput, which does not tell the label."""
        if not set(row.labels) <= self.places.keys():
            raise BadInput(
                f"{row.where} has a label that is not among the {len(self.names)} known; add it to label_names."
            )
        if self.several:
            return [float(name in row.labels) for name in self.names]
        if len(row.labels) != 1:
            raise BadInput(f"{row.where} has {len(row.labels)} labels and not one; set multi_label, or choose one.")
        return self.places[row.labels[0]]


class Loss:
    """Cross entropy, of one class against the others or of each against its absence; balanced, what is there of a class
    weighs the inverse of the class's share (King and Zeng 2001), so that each class counts as much.
    """

    def __init__(self, classes: Classes, given: Sequence[Target], balanced: bool) -> None:
        self.several, self.weights = classes.several, None
        if balanced:
            targets = torch.tensor(given)
            count = targets.sum(0) if self.several else targets.bincount(minlength=len(classes.names))
            shares = count.float().clamp(min=1) / len(given)
            self.weights = 1 / shares if self.several else 1 / (shares * len(classes.names))

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        """The mean over a batch; where that is fed in parts, a part's share of it."""
        values = outputs["logits"].float()
        weights = None if self.weights is None else self.weights.to(values.device)
        if self.several:
            total = binary_cross_entropy_with_logits(values, labels, pos_weight=weights, reduction="sum")
        else:
            total = cross_entropy(values, labels, weight=weights, reduction="sum")
        return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


def grades(classes: Classes, found: EvalPrediction) -> dict[str, Any]:
    """How the classes of held-out rows were told, and the matrix of which was taken for which.

    `accuracy` counts rows of which all is right. F1 is 2·tp ÷ (2·tp + fp + fn) (van Rijsbergen 1979, chapter 7), micro
    over all decisions, macro the mean over the classes that were there or told. `confusion` has a row for each class
    there was and a column for each that was told; of texts with several, for each class [[tn, fp], [fn, tp]].
    """
    values, there = torch.as_tensor(found.predictions), torch.as_tensor(found.label_ids)
    count = len(classes.names)
    if classes.several:
        told, there = values > 0, there > 0.5
    else:
        places, told = there, torch.nn.functional.one_hot(values.argmax(1), count) > 0
        there = torch.nn.functional.one_hot(places, count) > 0
    hit, extra, missed = ((a & b).sum(0) for a, b in ((told, there), (told, ~there), (~told, there)))
    each = 2 * hit / (2 * hit + extra + missed).clamp(min=1)
    of = (hit + extra + missed) > 0
    all_of = (2 * hit.sum() + extra.sum() + missed.sum()).item()
    made = {
        "accuracy": (told == there).all(1).float().mean().item(),
        "macro_f1": each[of].mean().item() if of.any() else 1.0,
        "micro_f1": 2 * hit.sum().item() / all_of if all_of else 1.0,
    }
    if count > MAX_CONFUSED:
        return made
    if not classes.several:
        return made | {"confusion": (there.T.long() @ told.long()).tolist()}
    right = (~told & ~there).sum(0)
    return made | {"confusion": torch.stack([right, extra, missed, hit], 1).view(-1, 2, 2).tolist()}


class Grades(TrainerCallback):
    """Reports the grades of each evaluation; `eval_loss` is `ProgressCallback`'s to report."""

    def __init__(self, job: JobDir) -> None:
        self._job = job

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
        figures = {name: metrics[f"eval_{name}"] for name in (*GRADES, "confusion") if f"eval_{name}" in metrics}
        self._job.report("eval", step=state.global_step, total_steps=state.max_steps, **figures)
