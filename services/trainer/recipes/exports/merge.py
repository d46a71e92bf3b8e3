"""An adapter merged into its base, as whole weights: `python -m services.trainer.recipes.exports.merge JOBDIR`.

The sums are made in float32 and stored in the dtype of the base, or in `precision`. Knows no service.
"""

import sys
from pathlib import Path

from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import torch

from services.trainer.recipes.exports.drift import Likelihoods, logits_of
from services.trainer.recipes.exports.source import ROWS, asked, columns, held_out, load, longest
from services.trainer.recipes.exports.weights import copy_beside, finish
from services.trainer.refusals import enum_word


def export(job: JobDir) -> Outcome:
    parameters = asked(job, "merged").parameters
    recipe = parameters["trained_by"]
    source = load(job, recipe, merge=False)
    dtype = enum_word(parameters.get("precision"), "PRECISION_") or source.dtype
    most = longest(source.tokenizer, source.model, parameters.get("max_length"))
    rows = columns(held_out(job), recipe, source.tokenizer, most, ROWS)
    before = Likelihoods.of(logits_of(source.model), rows)  # of the adapter on its base, which merging changes

    job.report("phase", message="merging", step=2, total_steps=4)
    whole = source.model.merge_and_unload() if hasattr(source.model, "merge_and_unload") else source.model
    job.report("phase", message="saving", step=3, total_steps=4)
    whole.to(getattr(torch, dtype)).save_pretrained(job.fresh_out())
    source.tokenizer.save_pretrained(job.out_model)
    copy_beside(job)
    return finish(job, recipe, source, before, rows, dtype, most)


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), export))
