"""Preference optimization on pairs of answers: `python -m services.trainer.recipes.preference JOBDIR`.

DPO, ORPO, CPO and SimPO of an adapter (`lora`, the default) or all weights (`full`). Knows no service.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.trainer.recipes.distributed.ranks import world
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # that ORPO and CPO may change there is ours to know, not a user's
# ruff: noqa: E402

import torch
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, set_seed

from services.trainer.recipes.data.conversations import IGNORED
from services.trainer.recipes.data.pairs import (
    Pair,
    check_counted,
    check_head,
    likelihoods,
    pair_tokens,
    parity_prompts,
    preference,
    sees_all,
    still,
    within,
)
from services.trainer.recipes.data.rows import read_preferences
from services.trainer.recipes.distributed.distribution import share_of
from services.trainer.recipes.distributed.reference import summed, with_reference
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import write_parity
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.base_model import have_padding, load_base, longest_of
from services.trainer.recipes.models.quantization import quantization_config
from services.trainer.recipes.models.stored import number_of_weights
from services.trainer.recipes.models.tuning import adapter_config, check_targets, save

ADAPTER_DEFAULTS = Optimization(learning_rate=1e-4, batch_size=16)
FULL_DEFAULTS = Optimization(learning_rate=1e-5, batch_size=16)
MAX_LENGTH = 512
MAX_EVAL_ROWS = 256


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec(*METHODS)
    parameters = spec.parameters
    adapter = adapter_config(parameters)
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    rows = read_preferences(job.train_rows)
    held_out = job.held_out(read_preferences, MAX_EVAL_ROWS)

    set_seed(spec.seed)
    tokenizer, model = load_base(job.base, quantization_config(parameters))
    have_padding(tokenizer)
    still(model)
    if adapter is not None:
        check_targets(model, adapter)
    max_length = longest_of(parameters.get("max_length"), MAX_LENGTH, model)
    job.settings["max_length"] = max_length
    splits = {"train": rows, "validation": held_out}
    pairs, eval_pairs = (
        _fitting(pair_tokens(job, split, tokenizer, some), max_length) for split, some in splits.items()
    )

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = METHODS[spec.recipe](
        parameters,
        trainer_arguments(job, spec, optimization, len(pairs), number_of_weights(model), bool(eval_pairs)),
        model=model,
        train_dataset=Dataset.from_list([pair.columns for pair in pairs]),
        eval_dataset=Dataset.from_list([pair.columns for pair in eval_pairs]) if eval_pairs else None,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[progress],
    )
    first = pairs[:8]
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(len(first))])
    check_counted(tokenizer, batch, [each.chosen for each in first] + [each.rejected for each in first])
    metrics = {
        "rows_dropped": float(len(rows) - len(pairs)),
        **_measured(trainer.model, eval_pairs, "_before"),
        **train_or_resume(trainer, job, progress),
    }
    if progress.stopped:
        return Outcome(progress.stopped, metrics)

    job.report("phase", message="saving")
    metrics |= _measured(trainer.model, eval_pairs)
    kind = save(job, trainer.model, tokenizer)
    asked = [row.prompt for row in held_out or rows]
    write_parity(job, trainer.model, tokenizer, parity_prompts(tokenizer, asked, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def _fitting(pairs: list[Pair], max_length: int) -> list[Pair]:
    return within(pairs, [max(len(each.chosen.ids), len(each.rejected.ids)) for each in pairs], max_length)


def _measured(model: PreTrainedModel, pairs: list[Pair], when: str = "") -> dict[str, float]:
    chosen, rejected = ([getattr(each, side) for each in pairs] for side in ("chosen", "rejected"))
    return preference(likelihoods(model, chosen), likelihoods(model, rejected), when)


def dpo(parameters: dict[str, Any], arguments: dict[str, Any], **given: Any) -> Trainer:
    """Rafailov et al. 2023 (arXiv:2305.18290); with label smoothing, Chowdhury et al. 2024 (arXiv:2403.00409).

    The reference is the base. It is asked about each row once and before training where rows are seen once or more
    often, so that no second model is kept in memory; else, an adapter is switched off for it.
    """
    from trl import DPOConfig, DPOTrainer

    class Ready(DPOTrainer):
        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset  # it is tokens already

        def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
            if world() == 1:
                return super()._precompute_ref_logps(dataset, name, batch_size)
            return with_reference(self, dataset, batch_size, _reference)

    check_head(given["peft_config"])
    smoothing = parameters.get("label_smoothing") or 0.0
    config = DPOConfig(
        **arguments,
        beta=parameters.get("beta") or 0.1,
        loss_type=["robust" if smoothing else "sigmoid"],
        label_smoothing=smoothing,
        precompute_ref_log_probs=given["peft_config"] is None or sees_all(arguments, len(given["train_dataset"])),
        max_length=None,
        disable_dropout=False,
    )
    return Ready(args=config, **given)


def _reference(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(zip(("ref_chosen_logps", "ref_rejected_logps"), summed(model, batch).chunk(2), strict=True))


def orpo(parameters: dict[str, Any], arguments: dict[str, Any], **given: Any) -> Trainer:
    """Hong et al. 2024 (arXiv:2403.07691); the likelihood beside the odds ratio is that of the prompt too, as in the
    authors' code and in trl.
    """
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Ready(ORPOTrainer):
        tokenize_row = staticmethod(side_columns)

        def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[Any, ...]:
            counted = batch["chosen_attention_mask"][:, 1:].sum()
            return _of_all(super().concatenated_forward(model, batch), counted)

    config = ORPOConfig(**arguments, **AS_GIVEN, beta=parameters.get("beta") or 0.1)
    return _counting(Ready(args=config, **given))


def cpo(parameters: dict[str, Any], arguments: dict[str, Any], **given: Any) -> Trainer:
    """Xu et al. 2024 (arXiv:2401.08417)."""
    weight = parameters.get("likelihood_weight")
    knobs = {"beta": parameters.get("beta") or 0.1, "cpo_alpha": 1.0 if weight is None else weight}
    return _contrastive({**arguments, **knobs}, **given)


def simpo(parameters: dict[str, Any], arguments: dict[str, Any], **given: Any) -> Trainer:
    """Meng et al. 2024 (arXiv:2405.14734)."""
    gamma = parameters.get("gamma")
    knobs = {"beta": parameters.get("beta") or 2.0, "simpo_gamma": 1.0 if gamma is None else gamma}
    return _contrastive({**arguments, **knobs, "loss_type": "simpo", "cpo_alpha": 0.0}, **given)


def _contrastive(arguments: dict[str, Any], **given: Any) -> Trainer:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    class Ready(CPOTrainer):
        tokenize_row = staticmethod(side_columns)

        def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple[Any, ...]:
            counted = (batch["chosen_labels"][:, 1:] != IGNORED).sum()
            return _of_all(super().concatenated_forward(model, batch), counted)

    return _counting(Ready(args=CPOConfig(**arguments, **AS_GIVEN), **given))


METHODS: dict[str, Callable[..., Trainer]] = {"dpo": dpo, "orpo": orpo, "cpo": cpo, "simpo": simpo}
#: Rows that do not fit are left out before; the columns are those of `side_columns`.
AS_GIVEN = {"max_length": sys.maxsize, "disable_dropout": False, "remove_unused_columns": False}


def side_columns(row: dict[str, list[int]]) -> dict[str, list[int]]:
    """What trl's ORPO and CPO trainers make of a row, from `Pair.columns`."""
    asked, columns = row["prompt_ids"], {}
    for side in ("chosen", "rejected"):
        said = row[f"{side}_ids"]
        columns[f"{side}_input_ids"] = asked + said
        columns[f"{side}_attention_mask"] = [1] * len(asked + said)
        columns[f"{side}_labels"] = [IGNORED] * len(asked) + said
    return columns


def _of_all(found: tuple[Any, ...], counted: torch.Tensor) -> tuple[Any, ...]:
    """What ORPO and CPO find in a batch, their fifth being the mean over `counted` tokens, of all devices where there
    are several: a mean over theirs would weigh tokens of short answers more.
    """
    return (*found[:4], found[4] * share_of(counted), *found[5:])


def _counting(trainer: Trainer) -> Trainer:
    """Let the trainer count tokens: it looks for them in `input_ids`, which these batches do not have."""
    collate = trainer.data_collator

    def with_both(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = collate(rows)
        for name in ("input_ids", "attention_mask"):
            batch[name] = torch.cat([batch[f"chosen_{name}"], batch[f"rejected_{name}"]], dim=1)
        return batch

    trainer.data_collator = with_both
    return trainer


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
