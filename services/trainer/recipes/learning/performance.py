"""What a job is told of speed and memory, as arguments of its trainer; what it leaves open is chosen here.

Chosen by measurement (benchmarks/trainer.py); what was chosen stands in the result's settings.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pyarrow
from datasets import Dataset
from transformers import PreTrainedModel
from trl import pack_dataset

from services.trainer.performance import FLASH, Performance
from services.trainer.recipes.data import packing
from services.trainer.recipes.data.tokens import as_dataset
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Spec
from services.trainer.recipes.models.device import device_type
from services.trainer.refusals import Asked

PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def joining(job: JobDir, spec: Spec, model: PreTrainedModel, rows: pyarrow.Table, by_itself: bool) -> dict[str, Any]:
    """Arguments of TRL's trainer for rows that lie in one sequence, and makes the model keep them apart.

    `by_itself`: where the spec does not say, do it if the model can. Proved on the model before it is done; raises
    BadInput where it was asked for and does not hold.
    """
    asked = Asked.of(spec.parameters, spec.recipe)
    told = asked.performance
    wanted = told.packing or told.padding_free
    flash = told.attn_implementation in FLASH
    by_itself = by_itself and told.padding_free is None and asked.distribution.devices == 1
    by_itself = by_itself and (flash or device_type() == "cpu")  # elsewhere it was not measured
    job.settings["packing"] = bool(told.packing)
    if told.attn_implementation:
        _use_attention(model, told.attn_implementation)
    if not (wanted or by_itself):
        return {"padding_free": False}
    if not flash and not _stay_apart(model, rows["input_ids"][:2].to_pylist()):
        if wanted:
            name = "packing" if told.packing else "padding_free"
            raise BadInput(f"The base cannot keep rows apart that are one sequence; leave performance.{name} out.")
        return {"padding_free": False}
    # No padding: every token counts, also one that is the padding's by its number.
    return {"padding_free": True, "include_num_input_tokens_seen": "all"}


def arranged(spec: Spec, rows: pyarrow.Table, max_length: int) -> Dataset:
    """The rows as a trainer reads them: packed into sequences of at most `max_length` where that is asked for."""
    dataset = as_dataset(rows)
    if not Performance.of(spec.parameters).packing:
        return dataset
    return pack_dataset(dataset.select_columns(["input_ids", "labels"]), max_length, "bfd")


def _stay_apart(model: PreTrainedModel, documents: list[list[int]]) -> bool:
    """Whether rows do from now on; else the model is as it was."""
    if not packing.can_join(model):
        return False
    packing.keep_apart(model)
    if not packing.can_stay_apart(model, documents):
        packing.together_again(model)
        return False
    return True


def _use_attention(model: PreTrainedModel, asked: str) -> None:
    """Raises BadInput where it cannot be had."""
    package = PACKAGES.get(asked)
    if package is not None and find_spec(package) is None:
        raise BadInput(
            f"performance.attn_implementation is {asked}, whose package {package} is not installed; take sdpa."
        )
    try:
        model.set_attn_implementation(asked)
    except (ValueError, ImportError) as error:
        raise BadInput(
            f"The base cannot compute attention by {asked}; leave performance.attn_implementation out."
        ) from error
