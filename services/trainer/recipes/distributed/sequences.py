"""Ulysses (Jacobs et al. 2023, arXiv:2309.14509): processes that each have a part of every sequence; knows no task.

DeepSpeed changes parts of sequences for heads before attention and back after it. The rest is ours: its adapter for
transformers takes no rows side by side, repeats batches and doubles gradients (DeepSpeed 0.19, accelerate 1.15).
Here a part of a sequence is to its engine what a row of its own is, so it goes with each of them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import Trainer

from services.trainer.recipes.distributed.ranks import own_rank
from services.trainer.recipes.job.failures import BadInput

IGNORED = -100


class Parts:
    """Cuts batches for this process; `first` is the length of the first one's rows, padding that divides them included.

    Of the first, as loaders are a batch or more ahead of what is trained on.
    """

    def __init__(self, size: int, collate: Callable[[list[Any]], dict[str, Any]], filler: int) -> None:
        self.first = 0
        self._size, self._collate, self._filler = size, collate, filler

    def __call__(self, rows: list[Any]) -> dict[str, torch.Tensor]:
        """`input_ids`, `position_ids` and `shift_labels`, all (rows, part), of rows that begin at the left."""
        batch = self._collate(rows)
        if "position_ids" in batch:
            raise BadInput("Rows that are packed side by side cannot be cut for several devices; leave packing out.")
        ids, labels = batch["input_ids"], batch["labels"]
        if "attention_mask" in batch:
            labels = labels.masked_fill(batch["attention_mask"] == 0, IGNORED)
        more = -ids.shape[1] % self._size
        length = ids.shape[1] + more
        self.first = self.first or length
        positions = torch.arange(length).expand(len(ids), -1)
        part = length // self._size
        own = slice((at := own_rank() % self._size * part), at + part)
        # A part's last token predicts the first of the next one, so labels move by one before they are cut.
        targets = pad(labels[:, 1:], (0, more + 1), value=IGNORED)[:, own].contiguous()
        return {
            "input_ids": pad(ids, (0, more), value=self._filler)[:, own].contiguous(),
            "position_ids": positions[:, own].contiguous(),
            "labels": targets,
            "shift_labels": targets,
        }


def share_sequences(trainer: Trainer, size: int) -> Parts:
    """Makes a trainer cut the batches that it trains on into `size` parts, and attention see them whole.

    Raises BadInput where the model's heads cannot be shared so.
    """
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

    config = trainer.model.config.get_text_config()
    heads, of_values = config.num_attention_heads, config.num_key_value_heads
    if heads % size or of_values % size:  # DeepSpeed could repeat heads of values, but leaves the model changed by it
        raise BadInput(
            f"distribution.sequence_parallel_size is {size}, which must divide the {heads} attention heads of the "
            f"model and its {of_values} heads of keys and values; choose another."
        )
    UlyssesSPAttentionHF.register_with_transformers(
        trainer.model,
        core_attn_implementation=config._attn_implementation,
        sequence_parallel_size=size,
        micro_batch_size=trainer.args.per_device_train_batch_size,
        disable_in_eval=True,
    )
    tokenizer = trainer.processing_class
    filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    whole, batches = trainer.data_collator, trainer.get_train_dataloader
    parts = Parts(size, whole, filler)

    def in_parts() -> Any:
        trainer.data_collator = parts
        try:
            loader = batches()
        finally:
            trainer.data_collator = whole  # evaluation has whole rows
        # Whoever shares a sequence has the same rows.
        loader.batch_sampler.num_processes //= size
        loader.batch_sampler.process_index //= size
        return loader

    trainer.get_train_dataloader = in_parts
    return parts
