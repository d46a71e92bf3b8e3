"""Prospect-theoretic optimization on answers called good or bad: `python -m services.trainer.recipes.kto JOBDIR`.

KTO (Ethayarajh et al. 2024, arXiv:2402.01306) of an adapter (`lora`, the default) or all weights (`full`). Knows no
service.
"""

import random
import sys
from pathlib import Path
from typing import Any

from services.trainer.distribution import Distribution
from services.trainer.recipes.distributed.ranks import world
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import pyarrow
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase, set_seed
from trl import KTOConfig, KTOTrainer

from services.trainer.recipes.data.pairs import (
    Answer,
    answer,
    check_counted,
    check_head,
    likelihoods,
    parity_prompts,
    preference,
    sees_all,
    still,
    within,
)
from services.trainer.recipes.data.rows import Feedback, read_feedback
from services.trainer.recipes.data.tokens import made_once, schema_of
from services.trainer.recipes.distributed.reference import summed, with_reference
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import write_parity
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.base_model import load_base, longest_of
from services.trainer.recipes.models.quantization import quantization_config
from services.trainer.recipes.models.stored import number_of_weights
from services.trainer.recipes.models.tuning import adapter_config, check_targets, save

ADAPTER_DEFAULTS = Optimization(learning_rate=1e-4, batch_size=16)
FULL_DEFAULTS = Optimization(learning_rate=1e-5, batch_size=16)
MAX_LENGTH = 512
MAX_EVAL_ROWS = 256

TOKENS = schema_of("prompt_ids", "answer_ids")
Judged = tuple[Answer, bool]


class Ready(KTOTrainer):
    """Takes the columns of `columns` as they are."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if world() == 1:
            return super()._precompute_ref_logps(dataset, name, batch_size)
        return with_reference(
            self, dataset, batch_size, lambda m, b: {"ref_logps": summed(m, b), "ref_KL_logps": summed(m, b, "KL_")}
        )


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("kto")
    parameters = spec.parameters
    adapter = adapter_config(parameters)
    check_head(adapter)
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    if optimization.batch_size < 2:
        raise BadInput("optimization.batch_size is 1; kto compares the rows of a batch, so give 2 or more.")
    rows = read_feedback(job.train_rows)
    held_out = job.held_out(read_feedback, MAX_EVAL_ROWS)

    set_seed(spec.seed)
    tokenizer, model = load_base(job.base, quantization_config(parameters))
    still(model)
    if adapter is not None:
        check_targets(model, adapter)
    max_length = longest_of(parameters.get("max_length"), MAX_LENGTH, model)
    job.settings["max_length"] = max_length
    splits = {"train": rows, "validation": held_out}
    judged, eval_judged = (_fitting(job, split, tokenizer, some, max_length) for split, some in splits.items())
    # The trainer takes batches as they stand, so that a batch holds the answers it is compared with.
    random.Random(spec.seed).shuffle(judged)
    together = optimization.batch_size * Distribution.of(parameters).row_shares

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    arguments = trainer_arguments(job, spec, optimization, len(judged), number_of_weights(model), bool(eval_judged))
    trainer = Ready(
        model=model,
        args=config(parameters, arguments, max_length, adapter is None or sees_all(arguments, len(judged))),
        train_dataset=Dataset.from_list(columns(judged, together)),
        eval_dataset=Dataset.from_list(columns(eval_judged, together)) if eval_judged else None,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[progress],
    )
    first = [each for each, _ in judged[:8]]
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(len(first))])
    check_counted(tokenizer, batch, first)
    held_out_answers = [each for each, _ in eval_judged]
    before = likelihoods(trainer.model, held_out_answers)
    metrics = {
        "rows_dropped": float(len(rows) - len(judged)),
        **_measured(before - before, eval_judged, "_before"),
        **train_or_resume(trainer, job, progress),
    }
    if progress.stopped:
        return Outcome(progress.stopped, metrics)

    job.report("phase", message="saving")
    metrics |= _measured(likelihoods(trainer.model, held_out_answers) - before, eval_judged)
    kind = save(job, trainer.model, tokenizer)
    asked = [row.prompt for row in held_out or rows]
    write_parity(job, trainer.model, tokenizer, parity_prompts(tokenizer, asked, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def config(parameters: dict[str, Any], arguments: dict[str, Any], max_length: int, once: bool) -> KTOConfig:
    """`once`: the base, which is the reference, is asked about each row before training; else an adapter is switched
    off for it. Prompts with answers fit `max_length`; a prompt with another's answer, which the estimate of the
    divergence needs, is cut.
    """
    return KTOConfig(
        **arguments,
        beta=parameters.get("beta") or 0.1,
        desirable_weight=parameters.get("desirable_weight") or 1.0,
        undesirable_weight=parameters.get("undesirable_weight") or 1.0,
        precompute_ref_log_probs=once,
        max_length=max_length,
        disable_dropout=False,
    )


def columns(rows: list[Judged], batch_size: int) -> list[dict[str, Any]]:
    """What trl's KTOTrainer makes of rows: with each prompt the answer to the prompt before it in its batch, the
    first having the last one's; a row that is alone in its batch has that of the row before.
    """
    made = []
    for place, (given, good) in enumerate(rows):
        first = place - place % batch_size
        last = min(first + batch_size, len(rows)) - 1
        other = last if place == first < last else place - 1
        made.append(
            {
                "prompt_ids": given.prompt_ids,
                "completion_ids": given.answer_ids,
                "KL_completion_ids": rows[other][0].answer_ids,
                "label": good,
            }
        )
    return made


def _fitting(
    job: JobDir, split: str, tokenizer: PreTrainedTokenizerBase, rows: list[Feedback], max_length: int
) -> list[Judged]:
    def make() -> pyarrow.Table:
        found = (answer(tokenizer, row.prompt, row.completion) for row in rows)
        return pyarrow.Table.from_pylist([{n: getattr(each, n) for n in TOKENS.names} for each in found], TOKENS)

    told = made_once(job, split, TOKENS, len(rows), make).to_pydict().values()
    judged = [
        (Answer(asked, said, row.completion["content"]), row.good) for asked, said, row in zip(*told, rows, strict=True)
    ]
    return within(judged, [len(each.ids) for each, _ in judged], max_length)


def _measured(gains: Tensor, rows: list[Judged], when: str = "") -> dict[str, float]:
    """Each good answer against each bad one, by how much likelier they became: as they answer other prompts, how
    likely they are tells of the prompts. So the base itself has half of them right, by nothing.
    """
    good = torch.tensor([fine for _, fine in rows], dtype=torch.bool)
    return preference(gains[good][:, None], gains[~good][None, :], when)


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
