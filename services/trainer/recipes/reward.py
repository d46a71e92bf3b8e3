"""A reward model from pairs of answers: `python -m services.trainer.recipes.reward JOBDIR`.

One score for a conversation, read at its last token, so that better answers score higher (Bradley and Terry 1952;
Ouyang et al. 2022, arXiv:2203.02155). Trains an adapter (`lora`, the default) or all weights (`full`) and leaves whole
weights either way: engines serve a score on top of a base in no other form. Knows no service.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import pyarrow
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from trl import RewardConfig, RewardTrainer

from services.trainer.recipes.data.conversations import tokenize
from services.trainer.recipes.data.pairs import preference, still, within
from services.trainer.recipes.data.rows import Preference, read_preferences
from services.trainer.recipes.data.tokens import made_once, schema_of
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import Probe, write_probes
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.base_model import longest_of
from services.trainer.recipes.models.encoders import choose_pad
from services.trainer.recipes.models.tuning import adapter_config, check_targets, save

ADAPTER_DEFAULTS = Optimization(learning_rate=1e-4, batch_size=16, epochs=1.0)
FULL_DEFAULTS = Optimization(learning_rate=1e-5, batch_size=16, epochs=1.0)
MAX_LENGTH = 512
MAX_EVAL_ROWS = 256

SCORED = schema_of("chosen_ids", "rejected_ids")
Scored = dict[str, list[int]]  # `chosen_ids` and `rejected_ids`, whole conversations


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("rm")
    parameters = spec.parameters
    adapter = adapter_config(parameters, "SEQ_CLS")  # which trains the head whole
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    rows = read_preferences(job.train_rows)
    held_out = job.held_out(read_preferences, MAX_EVAL_ROWS)

    set_seed(spec.seed)
    tokenizer, model = load_scorer(job.base)
    still(model)
    if adapter is not None:
        check_targets(model, adapter)
    max_length = longest_of(parameters.get("max_length"), MAX_LENGTH, model)
    job.settings["max_length"] = max_length
    splits = {"train": rows, "validation": held_out}
    pairs, eval_pairs = (_fitting(job, split, tokenizer, some, max_length) for split, some in splits.items())
    choose_pad(tokenizer, model, (ids[-1] for pair in pairs + eval_pairs for ids in pair.values()))

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            **trainer_arguments(job, spec, optimization, len(pairs), model.num_parameters(), bool(eval_pairs)),
            center_rewards_coefficient=parameters.get("center_coefficient") or None,
            max_length=None,  # what is too long is left out above
            disable_dropout=False,
        ),
        train_dataset=Dataset.from_list(pairs),
        eval_dataset=Dataset.from_list(eval_pairs) if eval_pairs else None,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[progress],
    )
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
    write_probes(job, probes(trainer.model, tokenizer, held_out or rows, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def load_scorer(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and float32 weights of a Hugging Face model with one score on top, a new one where it has none, which
    torch's seed decides. Raises BadInput otherwise.
    """
    if not (folder / "config.json").is_file():
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=1,
            id2label={0: "score"},
            label2id={"score": 0},
            problem_type="regression",  # what engines give back as it is, not as a probability
            dtype="float32",
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base cannot be loaded as a model with one score on top, with its tokenizer.") from error
    return tokenizer, model


def _fitting(
    job: JobDir, split: str, tokenizer: PreTrainedTokenizerBase, rows: list[Preference], max_length: int
) -> list[Scored]:
    def make() -> pyarrow.Table:
        sides = (
            [tokenize(tokenizer, [*row.prompt, each]).input_ids for each in (row.chosen, row.rejected)] for row in rows
        )
        return pyarrow.Table.from_pylist([dict(zip(SCORED.names, ids, strict=True)) for ids in sides], schema=SCORED)

    pairs = made_once(job, split, SCORED, len(rows), make).to_pylist()
    return within(pairs, [max(map(len, pair.values())) for pair in pairs], max_length)


@torch.no_grad()
def scores(model: PreTrainedModel | PeftModel, conversations: Iterable[list[int]]) -> torch.Tensor:
    """The score of each conversation: (conversations,) float32 on the CPU."""
    model.eval()
    found = [model(input_ids=torch.tensor([ids], device=model.device)).logits[0, 0].float() for ids in conversations]
    return torch.stack(found).cpu() if found else torch.empty(0)


def probes(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, rows: list[Preference], max_length: int
) -> Iterator[Probe]:
    """The scores of both answers to one prompt after the other, as a client asks for them."""
    for row in rows:
        for said in (row.chosen, row.rejected):
            messages = [*row.prompt, said]
            ids = tokenize(tokenizer, messages).input_ids
            if len(ids) <= max_length:
                yield Probe("logits", {"messages": messages}, ids, scores(model, [ids]).tolist())


def _measured(model: PreTrainedModel | PeftModel, pairs: list[Scored], when: str = "") -> dict[str, float]:
    chosen, rejected = (scores(model, (pair[side] for pair in pairs)) for side in ("chosen_ids", "rejected_ids"))
    return preference(chosen, rejected, when)


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
