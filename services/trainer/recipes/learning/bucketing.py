"""Batches of rows of about one length, in an order that is the epoch's alone; knows no task."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler


class ByLength(LengthGroupedSampler):
    """Transformers' own, whose order would come of all that was drawn before: it would be another on each device, and
    after a pause.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths))
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Its order, as the loader asks for it."""
        self.generator = torch.Generator().manual_seed(self._seed + epoch)


def take_by_length(trainer: Trainer) -> None:
    """Makes a trainer take rows of about one length into a batch."""
    args = trainer.args
    together = args.train_batch_size * args.gradient_accumulation_steps
    lengths = lengths_of(trainer.train_dataset)
    trainer._get_train_sampler = lambda _=None: ByLength(together, lengths, args.seed)


def lengths_of(rows: Any) -> list[int]:
    """Tokens of each row, of two answers to a prompt those of the longer one with it."""
    first = rows[0]
    if "length" in first:
        return [row["length"] for row in rows]
    if "input_ids" in first:
        return [len(row["input_ids"]) for row in rows]
    return [len(row.get("prompt_ids", ())) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
