"""A head that names the class of a text, or its classes: `python -m services.trainer.recipes.sequence_classification
JOBDIR`.

Trains all weights (`full`, the default) or an adapter, and leaves whole weights either way. Knows no service.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments, set_seed

from services.trainer.recipes.data.pairs import within
from services.trainer.recipes.data.rows import Classified, read_classified
from services.trainer.recipes.learning.classes import GRADES, MAX_CONFUSED, Classes, Grades, Loss, grades
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import Probe, write_probes
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import last_evaluation, train_or_resume
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

ADAPTER_DEFAULTS = Optimization(learning_rate=5e-4)
FULL_DEFAULTS = Optimization(learning_rate=5e-5)
MAX_EVAL_ROWS = 1024


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("sequence_classification")
    parameters = spec.parameters
    adapter = chosen_adapter(spec, "SEQ_CLS")  # which trains the head whole
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    rows = read_classified(job.train_rows)
    held_out = job.held_out(read_classified, MAX_EVAL_ROWS)
    classes = Classes.of(rows, parameters)

    set_seed(spec.seed)
    tokenizer = load_tokenizer(job.base)
    model = load_classifier(job.base, classes.names, classes.problem_type)
    max_length = longest(tokenizer, model, parameters.get("max_length"))
    job.settings["max_length"] = max_length
    texts, eval_texts = (_fitting(tokenizer, classes, some, max_length) for some in (rows, held_out))
    choose_pad(tokenizer, model, (text["input_ids"][-1] for text in texts + eval_texts))
    arguments = trainer_arguments(job, spec, optimization, len(texts), model.num_parameters(), bool(eval_texts))

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = Trainer(
        model=adapted(model, adapter, arguments),
        args=TrainingArguments(**arguments, remove_unused_columns=False, label_names=["labels"]),
        data_collator=lambda batch: padded(tokenizer, batch),
        train_dataset=texts,
        eval_dataset=eval_texts or None,
        compute_loss_func=Loss(classes, [text["labels"] for text in texts], bool(parameters.get("balance_classes"))),
        compute_metrics=lambda found: grades(classes, found),
        callbacks=[progress, Grades(job)],
    )
    metrics = {"rows_dropped": float(len(rows) - len(texts)), **train_or_resume(trainer, job, progress)}
    if progress.stopped:
        return Outcome(progress.stopped, metrics)
    if eval_texts:
        last = last_evaluation(trainer)
        metrics |= {name: last[f"eval_{name}"] for name in GRADES}
        metrics["eval_loss"] = last["eval_loss"]
        job.notes["confusion"] = str(last.get("eval_confusion", f"left out above {MAX_CONFUSED} classes"))

    job.report("phase", message="saving")
    kind = save(job, trainer.model, tokenizer)
    saved = read_again(job)
    asked = within(held_out or rows, [len(tokenizer(row.text).input_ids) for row in held_out or rows], max_length)[:8]
    ids = [tokenizer(row.text) for row in asked]
    found = [logits(saved, tokenizer, [each])[0].tolist() for each in ids]
    write_probes(
        job,
        (Probe("logits", {"input": r.text}, e["input_ids"], v) for r, e, v in zip(asked, ids, found, strict=True)),
    )
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def _fitting(
    tokenizer: PreTrainedTokenizerBase, classes: Classes, rows: Sequence[Classified], max_length: int
) -> list[Columns]:
    texts = [{**tokenizer(row.text), "labels": classes.target(row)} for row in rows]
    return within(texts, [len(text["input_ids"]) for text in texts], max_length)


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
