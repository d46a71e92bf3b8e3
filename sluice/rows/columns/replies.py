"""Prompts with two answers, or with one and a verdict, as columns; the rows' view of them is `sluice.rows.answers`."""

import numpy as np
import pyarrow as pa

from sluice.rows.columns.arrays import Mask, column, equal, filled, present, strings
from sluice.rows.columns.turns import MESSAGES, prompts, single


def preference(raw: pa.Table) -> tuple[list[pa.Array], Mask]:
    """`prompt`, `chosen` and `rejected` where all three are texts."""
    chosen, rejected = strings(raw, "chosen"), strings(raw, "rejected")
    if chosen is None or rejected is None:
        return [pa.nulls(len(raw), MESSAGES)] * 3, np.zeros(len(raw), np.bool_)
    prompt, sound = prompts(raw)
    sound = sound & filled(chosen) & filled(rejected) & ~equal(chosen, rejected)
    return [prompt, single("assistant", chosen), single("assistant", rejected)], sound


def feedback(raw: pa.Table) -> tuple[list[pa.Array], Mask]:
    """`prompt` and `completion` where they are texts, `label` where it is true or false."""
    completion, label = strings(raw, "completion"), column(raw, "label")
    if completion is None or label is None or label.type != pa.bool_():
        nothing = [pa.nulls(len(raw), MESSAGES)] * 2
        return [*nothing, pa.nulls(len(raw), pa.bool_())], np.zeros(len(raw), np.bool_)
    prompt, sound = prompts(raw)
    return [prompt, single("assistant", completion), label], sound & filled(completion) & present(label)
