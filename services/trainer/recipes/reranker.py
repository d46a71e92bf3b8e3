"""A cross-encoder, which scores a document for a query: `python -m services.trainer.recipes.reranker JOBDIR`.

Binary cross entropy over pairs that fit and pairs that do not (Nogueira and Cho 2019, arXiv:1901.04085). Trains all
weights (`full`, the default) or an adapter, and leaves whole weights either way. Knows no service.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from peft import PeftModel
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments, set_seed

from services.trainer.recipes.data.pairs import within
from services.trainer.recipes.data.retrieval import NEGATIVES, ranked, with_others
from services.trainer.recipes.data.rows import Retrieval, read_retrieval
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import Probe, write_probes
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.encoders import (
    Columns,
    adapted,
    choose_pad,
    chosen_adapter,
    load_classifier,
    load_tokenizer,
    logits,
    longest,
    padded,
    read_again,
)
from services.trainer.recipes.models.tuning import save

ADAPTER_DEFAULTS = Optimization(learning_rate=2e-4, epochs=1.0)
FULL_DEFAULTS = Optimization(learning_rate=2e-5, epochs=1.0)
MAX_EVAL_ROWS = 256

Pair = tuple[str, str, bool]


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("reranker")
    parameters = spec.parameters
    adapter = chosen_adapter(spec, "SEQ_CLS")  # which trains the head whole
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    rows = read_retrieval(job.train_rows)
    held_out = job.held_out(read_retrieval, MAX_EVAL_ROWS)
    negatives = parameters.get("negatives") or NEGATIVES
    pairs, eval_pairs = with_others(rows, negatives, spec.seed), with_others(held_out, negatives, spec.seed)
    if all(fits for _, _, fits in pairs):
        raise BadInput("in/train.jsonl has no document that does not fit; give negatives, or rows of another query.")

    set_seed(spec.seed)
    tokenizer = load_tokenizer(job.base)
    tokenizer.chat_template = None  # engines would put pairs into it
    model = load_classifier(job.base, ["score"])
    max_length = longest(tokenizer, model, parameters.get("max_length"))
    job.settings["max_length"] = max_length
    batches, eval_batches = (_fitting(tokenizer, some, max_length) for some in (pairs, eval_pairs))
    choose_pad(tokenizer, model, (pair["input_ids"][-1] for pair in batches + eval_batches))
    arguments = trainer_arguments(job, spec, optimization, len(batches), model.num_parameters(), bool(eval_batches))

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = Trainer(
        model=adapted(model, adapter, arguments),
        args=TrainingArguments(
            **arguments, remove_unused_columns=False, label_names=["labels"], prediction_loss_only=True
        ),
        data_collator=lambda batch: padded(tokenizer, batch),
        train_dataset=batches,
        eval_dataset=eval_batches or None,
        compute_loss_func=loss,
        callbacks=[progress],
    )
    metrics = {
        "rows_dropped": float(len(pairs) - len(batches)),
        **_measured(trainer.model, tokenizer, held_out, max_length, "_before"),
        **train_or_resume(trainer, job, progress),
    }
    if progress.stopped:
        return Outcome(progress.stopped, metrics)

    job.report("phase", message="saving")
    metrics |= _measured(trainer.model, tokenizer, held_out, max_length)
    kind = save(job, trainer.model, tokenizer)
    write_probes(job, probes(read_again(job), tokenizer, eval_pairs or pairs, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def _fitting(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], max_length: int) -> list[Columns]:
    made = [{**tokenizer(query, document), "labels": float(fits)} for query, document, fits in pairs]
    return within(made, [len(pair["input_ids"]) for pair in made], max_length)


def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """The mean over a batch of pairs; where that is fed in parts, a part's share of it."""
    values = outputs["logits"][:, 0].float()
    total = binary_cross_entropy_with_logits(values, labels, reduction="sum")
    return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


def scores(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    query: str,
    documents: Sequence[str],
    max_length: int,
) -> list[float]:
    """The logit of each document; of a pair that is too long the document is cut."""
    how = {"truncation": "only_second", "max_length": max_length}
    return logits(model, tokenizer, [tokenizer(query, each, **how) for each in documents])[:, 0].tolist()


def _measured(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Retrieval],
    max_length: int,
    when: str = "",
) -> dict[str, float]:
    short = [row for row in rows if len(tokenizer(row.query).input_ids) + 8 <= max_length]
    return ranked(short, lambda query, documents: scores(model, tokenizer, query, documents, max_length), when)


def probes(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], max_length: int
) -> Iterator[Probe]:
    """The scores of pairs, one by one."""
    for query, document, _ in pairs:
        ids = tokenizer(query, document).input_ids
        if len(ids) <= max_length:
            value = scores(model, tokenizer, query, [document], max_length)
            yield Probe("score", {"query": query, "document": document}, ids, value)


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
