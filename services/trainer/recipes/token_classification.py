"""A head that names spans of a text: `python -m services.trainer.recipes.token_classification JOBDIR`.

Trains all weights (`full`, the default) or an adapter, and leaves whole weights either way. Knows no service.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForTokenClassification,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from services.trainer.recipes.data.conversations import IGNORED
from services.trainer.recipes.data.rows import Named, read_named
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import PROMPTS, Probe, write_probes
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import last_evaluation, train_or_resume
from services.trainer.recipes.models.encoders import (
    Columns,
    adapted,
    choose_pad,
    chosen_adapter,
    load_classifier,
    load_tokenizer,
    longest,
    padded,
    read_again,
)
from services.trainer.recipes.models.tuning import save
from sluice.spans import spans_of, tagged, tags_of

ADAPTER_DEFAULTS = Optimization(learning_rate=5e-4)
FULL_DEFAULTS = Optimization(learning_rate=5e-5)
MAX_LENGTH = 512
MAX_EVAL_ROWS = 1024
HEADS = ("classifier", "score")


@dataclass(frozen=True)
class Text:
    """A row as the model sees it: `columns` of its tokens, cut at the longest length, and the place of each."""

    row: Named
    columns: Columns
    offsets: list[tuple[int, int]]
    cut: bool

    def spans(self, tags: Sequence[str]) -> list[str]:
        """Place and name of each span that tags of its tokens stand for."""
        return [span.key for span in spans_of(self.row.text, self.offsets, tags)]


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("token_classification")
    parameters = spec.parameters
    adapter = chosen_adapter(spec, "TOKEN_CLS")  # which trains the head whole
    if adapter is not None:
        adapter.exclude_modules = list(HEADS)  # peft 0.21 knows the heads of texts alone, and would adapt these too
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    rows = read_named(job.train_rows)
    held_out = job.held_out(read_named, MAX_EVAL_ROWS)
    tags = tags_of(names_of(rows + held_out, parameters.get("label_names") or ()))

    set_seed(spec.seed)
    tokenizer = load_tokenizer(job.base)
    if not tokenizer.is_fast:
        raise BadInput("The base model's tokenizer does not tell where in a text its tokens are; take a fast one.")
    tokenizer.padding_side = "right"
    model = load_classifier(job.base, tags, kind=AutoModelForTokenClassification)
    max_length = longest(tokenizer, model, parameters.get("max_length") or MAX_LENGTH)
    job.settings["max_length"] = max_length
    texts, eval_texts = ([read(tokenizer, tags, row, max_length) for row in some] for some in (rows, held_out))
    choose_pad(tokenizer, model, (text.columns["input_ids"][-1] for text in texts + eval_texts))
    arguments = trainer_arguments(job, spec, optimization, len(texts), model.num_parameters(), bool(eval_texts))

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = Tagging(
        model=adapted(model, adapter, arguments),
        args=TrainingArguments(**arguments, remove_unused_columns=False, label_names=["labels"]),
        data_collator=lambda batch: collate(tokenizer, batch),
        train_dataset=[text.columns for text in texts],
        eval_dataset=[text.columns for text in eval_texts] or None,
        compute_loss_func=loss,
        compute_metrics=lambda found: grades(eval_texts, tags, found),
        preprocess_logits_for_metrics=lambda values, _: values.argmax(-1),
        callbacks=[progress, Grades(job)],
    )
    metrics = {**lost(texts), **train_or_resume(trainer, job, progress)}
    if progress.stopped:
        return Outcome(progress.stopped, metrics)
    if eval_texts:
        last = last_evaluation(trainer)
        metrics |= {name: last[f"eval_{name}"] for name in (*GRADES, "loss")}
        metrics["eval_loss"] = metrics.pop("loss")

    job.report("phase", message="saving")
    kind = save(job, trainer.model, tokenizer)
    write_probes(job, probes(read_again(job, AutoModelForTokenClassification), eval_texts or texts))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def names_of(rows: Sequence[Named], wanted: Sequence[str]) -> list[str]:
    """What spans are called: what is wanted, else the words of the rows, sorted. Raises BadInput, which tells none."""
    there = {span.label for row in rows for span in row.spans}
    names = list(wanted) or sorted(there)
    if not names:
        raise BadInput("No row has a span, so there is nothing to learn; give rows with some, or label_names.")
    if strange := there - set(names):
        raise BadInput(f"The rows name spans in {len(strange)} ways that are not among label_names; add them.")
    return names


def read(tokenizer: PreTrainedTokenizerBase, tags: Sequence[str], row: Named, max_length: int) -> Text:
    """The tokens of a row, up to `max_length` of them, and the tag of each; those that are of no text have none."""
    whole = tokenizer(row.text, truncation=True, max_length=max_length, return_offsets_mapping=True)
    offsets = [tuple(place) for place in whole.pop("offset_mapping")]
    places = {tag: place for place, tag in enumerate(tags)}
    labels = [
        places[tag] if start < end else IGNORED
        for (start, end), tag in zip(offsets, tagged(offsets, row.spans), strict=True)
    ]
    cut = len(tokenizer(row.text).input_ids) > max_length
    return Text(row, {**whole, "labels": labels}, offsets, cut)


def lost(texts: Sequence[Text]) -> dict[str, float]:
    """`rows_cut`, the rows that are longer than the longest length, and `entities_missed`, the spans that tags of
    tokens cannot say: they begin or end within a token, or were cut off.
    """
    said = [set(text.spans(tagged(text.offsets, text.row.spans))) for text in texts]
    missed = sum(span.key not in told for text, told in zip(texts, said, strict=True) for span in text.row.spans)
    return {"rows_cut": float(sum(text.cut for text in texts)), "entities_missed": float(missed)}


def collate(tokenizer: PreTrainedTokenizerBase, several: Sequence[Columns]) -> dict[str, Tensor]:
    """One batch: (texts, tokens of the longest) of each column."""
    rest = [{name: value for name, value in each.items() if name != "labels"} for each in several]
    labels = pad_sequence([torch.tensor(each["labels"]) for each in several], True, IGNORED)
    return {**padded(tokenizer, rest), "labels": labels}


def loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Cross entropy of each token's tag, the mean over a batch; where that is fed in parts, a part's share of it."""
    values = outputs["logits"].float()
    total = cross_entropy(values.view(-1, values.shape[-1]), labels.view(-1), ignore_index=IGNORED, reduction="sum")
    return total / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)


class Tagging(Trainer):
    """transformers' trainer counts the labels of a language model, whose first token has none."""

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        counted = torch.stack([(batch["labels"] != IGNORED).sum() for batch in batch_samples]).sum().to(device)
        return self.accelerator.gather(counted).sum()  # those of all devices


GRADES = ("entity_f1", "entity_precision", "entity_recall")


def grades(texts: Sequence[Text], tags: Sequence[str], found: EvalPrediction) -> dict[str, float]:
    """How the spans of held-out rows were told, place and name exactly (Tjong Kim Sang and De Meulder 2003): of all
    that were told the share that is there, of all that are there the share that was told, and their harmonic mean.
    """
    hit = told = there = 0
    for text, places in zip(texts, found.predictions, strict=True):
        said = set(text.spans([tags[place] for place in places[: len(text.offsets)]]))
        wanted = {span.key for span in text.row.spans}
        hit, told, there = hit + len(said & wanted), told + len(said), there + len(wanted)
    return {
        "entity_f1": 2 * hit / (told + there) if told + there else 1.0,
        "entity_precision": hit / told if told else float(not there),
        "entity_recall": hit / there if there else 1.0,
    }


class Grades(TrainerCallback):
    """Reports the grades of each evaluation; `eval_loss` is `ProgressCallback`'s to report."""

    def __init__(self, job: JobDir) -> None:
        self._job = job

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
        figures = {name: metrics[f"eval_{name}"] for name in GRADES if f"eval_{name}" in metrics}
        self._job.report("eval", step=state.global_step, total_steps=state.max_steps, **figures)


@torch.no_grad()
def probes(model: PreTrainedModel, texts: Sequence[Text]) -> list[Probe]:
    """What the model makes of the shortest of the first texts, all values of a token after those of the one before."""
    short = sorted((text for text in texts[: 8 * PROMPTS] if not text.cut), key=lambda text: len(text.offsets))
    made = []
    for text in short[:PROMPTS]:
        columns = {n: torch.tensor([v], device=model.device) for n, v in text.columns.items() if n != "labels"}
        values = model(**columns).logits[0].float().cpu()
        made.append(Probe("tokens", {"input": text.row.text}, text.columns["input_ids"], values.flatten().tolist()))
    return made


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
