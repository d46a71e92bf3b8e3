"""What a base makes of answers before engines share it out: each process asks it about a part; knows no task.

trl 1.16 would ask by the engines, which take the base apart before it is trained, by a head that looks for weights in
shares where ZeRO-3 is to come, and has the leader leave what it finds in a file whose name the others do not know.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, Trainer

from services.trainer.recipes.distributed.distribution import gathered
from services.trainer.recipes.distributed.ranks import own_rank, world

Batch = Mapping[str, Tensor]


def with_reference(
    trainer: Trainer, rows: Dataset, batch_size: int, find: Callable[[PreTrainedModel, Batch], Mapping[str, Tensor]]
) -> Dataset:
    """The rows with the columns that `find` makes of each batch, (rows,) each; a call of all processes."""
    model = trainer.model.to(trainer.accelerator.device).eval()
    as_base = model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()
    begins = range(0, len(rows), batch_size)
    mine: dict[int, dict[str, list[float]]] = {}
    with torch.no_grad(), as_base, trainer.accelerator.autocast():
        for begin in begins[own_rank() :: world()]:
            some = rows.select(range(begin, min(begin + batch_size, len(rows))))
            batch = {name: each.to(model.device) for name, each in trainer.data_collator(list(some)).items()}
            mine[begin] = {name: found.tolist() for name, found in find(model, batch).items()}
    told: dict[int, dict[str, list[float]]] = {}
    for each in gathered(mine):
        told |= each
    for name in told[0]:
        rows = rows.add_column(name, [value for begin in begins for value in told[begin][name]])
    return rows


def summed(model: PreTrainedModel, batch: Batch, of: str = "") -> Tensor:
    """The natural log-probability of the answer of each row, as trl's DPO and KTO collate them: (rows,) float32.

    `of` is what the names of their columns begin with.
    """
    ids, seen, counted = (batch[f"{of}{name}"] for name in ("input_ids", "attention_mask", "completion_mask"))
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits[:, :-1].float()
    found = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return -(found * counted[:, 1:]).sum(1)
