"""A dual encoder, which makes a vector of a text: `python -m services.trainer.recipes.embedding JOBDIR`.

InfoNCE (van den Oord et al. 2018, arXiv:1807.03748) by sentence-transformers. Trains all weights (`full`, the default)
or an adapter, and leaves a folder of sentence-transformers with whole weights either way. Knows no service.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process("scipy", "sentence_transformers", "sklearn")  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

import torch
from peft import PeftModel
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from sentence_transformers.util import cos_sim
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    PreTrainedTokenizerBase,
    TrainingArguments,
    set_seed,
)

from services.trainer.recipes.data.pairs import within
from services.trainer.recipes.data.retrieval import NEGATIVES, fitting, ranked
from services.trainer.recipes.data.rows import Retrieval, read_retrieval
from services.trainer.recipes.learning.contrastive import Contrastive, collate
from services.trainer.recipes.learning.optimization import Optimization, device_type, trainer_arguments
from services.trainer.recipes.learning.parity import Probe, write_probes
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.encoders import (
    BATCH,
    Columns,
    adapted,
    choose_pad,
    chosen_adapter,
    load_tokenizer,
    longest,
    padded,
)
from services.trainer.refusals import enum_word

ADAPTER_DEFAULTS = Optimization(learning_rate=2e-4, batch_size=64)
FULL_DEFAULTS = Optimization(learning_rate=2e-5, batch_size=64)
MAX_EVAL_ROWS = 256
POOLINGS = ("cls", "mean", "lasttoken")


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("embedding")
    parameters = spec.parameters
    adapter = chosen_adapter(spec, "FEATURE_EXTRACTION")
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    rows = read_retrieval(job.train_rows)
    held_out = job.held_out(read_retrieval, MAX_EVAL_ROWS)

    set_seed(spec.seed)
    encoder = load_encoder(job, parameters)
    tokenizer, model = encoder[0].tokenizer, encoder[0].model
    sizes = matryoshka_sizes(model.config.hidden_size, parameters)
    max_length = longest(tokenizer, model, parameters.get("max_length"))
    job.settings["max_length"] = max_length
    given = parameters.get("negatives") or NEGATIVES
    triples, eval_triples = (_fitting(tokenizer, some, given, max_length) for some in (rows, held_out))
    choose_pad(tokenizer, model, (text["input_ids"][-1] for each in triples + eval_triples for text in each["texts"]))
    arguments = trainer_arguments(job, spec, optimization, len(triples), model.num_parameters(), bool(eval_triples))
    encoder[0].model = adapted(model, adapter, arguments)

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = Contrastive(
        encoder,
        parameters,
        sizes,
        args=TrainingArguments(**arguments, remove_unused_columns=False, label_names=[], prediction_loss_only=True),
        data_collator=lambda batch: collate(tokenizer, batch),
        train_dataset=triples,
        eval_dataset=eval_triples or None,
        callbacks=[progress],
    )
    metrics = {
        "rows_dropped": float(sum(len(row.positive) for row in rows) - len(triples)),
        **_measured(encoder, held_out, max_length, "_before"),
        **train_or_resume(trainer, job, progress),
    }
    if progress.stopped:
        return Outcome(progress.stopped, metrics)
    encoder[0].model = trainer.model  # put together, where several devices had it

    job.report("phase", message="saving")
    metrics |= _measured(encoder, held_out, max_length)
    _save(job, encoder, sizes)
    saved = SentenceTransformer(str(job.out_model), device=device_type())
    write_probes(job, probes(saved, [row.query for row in held_out or rows], max_length))
    return Outcome("succeeded", metrics, {"kind": "full", "path": "out/model"})


def load_encoder(job: JobDir, parameters: dict[str, Any]) -> SentenceTransformer:
    """The base as float32, with the pooling that is asked for, or that the base was made with, or else the mean of an
    encoder and the last token of a causal model. Raises BadInput.
    """
    tokenizer = load_tokenizer(job.base)
    # sentence-transformers 6 would put every text into the template, and engines would not.
    tokenizer.chat_template = None
    try:
        with TemporaryDirectory() as bare:
            tokenizer.save_pretrained(bare)
            for file in (job.base / "config.json", *job.base.glob("*.safetensors*")):
                Path(bare, file.name).symlink_to(file.resolve())
            words = Transformer(bare, model_kwargs={"dtype": torch.float32})
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base cannot be loaded as a text model that gives a vector for each token.") from error
    kind = type(words.model.config)
    is_causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    pooling = enum_word(parameters.get("pooling_method"), "POOLING_METHOD_")
    pooling = pooling or _pooling_of(job.base) or ("lasttoken" if is_causal else "mean")
    if pooling not in POOLINGS:
        raise BadInput(f"pooling_method is {pooling!r}; it must be one of {', '.join(POOLINGS)}.")
    modules = [words, Pooling(words.model.config.hidden_size, pooling_mode=pooling)]
    if parameters.get("normalize_embeddings", True):
        modules.append(Normalize())
    return SentenceTransformer(modules=modules, device=device_type())


def _pooling_of(base: Path) -> str:
    """The pooling of a base that is a folder of sentence-transformers, in its older words or the newer one."""
    file = base / "1_Pooling" / "config.json"
    if not file.is_file():
        return ""
    said = json.loads(file.read_text("utf-8"))
    older = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "lasttoken"}
    return str(said.get("pooling_mode") or next((word for key, word in older.items() if said.get(key)), ""))


def matryoshka_sizes(width: int, parameters: dict[str, Any]) -> list[int]:
    """The sizes that are trained, the whole width first; empty where none are asked for. Raises BadInput."""
    asked = parameters.get("matryoshka_sizes") or []
    if too_large := [size for size in asked if size > width]:
        raise BadInput(f"matryoshka_sizes has {max(too_large)}, but the base makes vectors of {width}; leave it out.")
    return sorted({*asked, width}, reverse=True) if asked else []


def _fitting(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Retrieval], negatives: int, max_length: int
) -> list[dict[str, Any]]:
    """For each text that fits a query: `texts`, the tokens of query, text and given negatives; `documents`, the numbers
    of the latter; and `fits`, those of all that fits the query.
    """
    fits = fitting(rows)
    number: dict[str, int] = {}
    found = []
    for row in rows:
        wrong = [text for text in row.negatives if text not in fits[row.query]][:negatives]
        for text in row.positive:
            documents = [text, *wrong]
            found.append(
                {
                    "texts": [dict(tokenizer(each)) for each in (row.query, *documents)],
                    "documents": [number.setdefault(each, len(number)) for each in documents],
                    "fits": [number.setdefault(each, len(number)) for each in sorted(fits[row.query])],
                }
            )
    return within(found, [max(len(text["input_ids"]) for text in each["texts"]) for each in found], max_length)


@torch.no_grad()
def vectors(encoder: SentenceTransformer, texts: Sequence[str], max_length: int) -> Tensor:
    """(texts, width) float32 on the CPU; what is too long is cut."""
    encoder.eval()
    tokenizer, found = encoder[0].tokenizer, []
    for begin in range(0, len(texts), BATCH):
        columns: list[Columns] = [
            dict(tokenizer(text, truncation=True, max_length=max_length)) for text in texts[begin : begin + BATCH]
        ]
        batch = {name: column.to(encoder.device) for name, column in padded(tokenizer, columns).items()}
        found.append(encoder(batch)["sentence_embedding"].float().cpu())
    return torch.cat(found)


def _measured(
    encoder: SentenceTransformer, rows: Sequence[Retrieval], max_length: int, when: str = ""
) -> dict[str, float]:
    def score(query: str, documents: list[str]) -> list[float]:
        made = vectors(encoder, [query, *documents], max_length)
        return cos_sim(made[:1], made[1:])[0].tolist()

    return ranked(rows, score, when)


def _save(job: JobDir, encoder: SentenceTransformer, sizes: Sequence[int]) -> None:
    """Write `out/model/`, adapters merged; engines cut vectors at `matryoshka_dimensions` only."""
    if isinstance(encoder[0].model, PeftModel):
        encoder[0].model = encoder[0].model.merge_and_unload()
    if sizes:
        encoder[0].model.config.matryoshka_dimensions = list(sizes)
    encoder.save_pretrained(str(job.fresh_out()), create_model_card=False)


def probes(encoder: SentenceTransformer, texts: Sequence[str], max_length: int) -> Iterator[Probe]:
    """The vectors of texts, one by one."""
    for text in texts:
        ids = encoder[0].tokenizer(text).input_ids
        if len(ids) <= max_length:
            yield Probe("vector", {"input": text}, ids, vectors(encoder, [text], max_length)[0].tolist())


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
