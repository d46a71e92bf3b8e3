"""Next-token training on plain text: `python -m services.trainer.recipes.pretrain JOBDIR`.

With `in/base/` it continues from that model; without, it makes tokenizer and weights. Knows no service.
"""

import random
import sys
from pathlib import Path
from typing import Any

from services.trainer.performance import Performance
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig

from services.trainer.recipes.data.conversations import Tokenized
from services.trainer.recipes.data.rows import read_texts
from services.trainer.recipes.data.tokens import as_dataset, columns
from services.trainer.recipes.distributed.distribution import loading
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import Prompt, write_parity
from services.trainer.recipes.learning.performance import arranged, joining
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.token_loss import TokenTrainer
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.base_model import load_base
from services.trainer.recipes.models.fresh_model import ModelShape, fresh_model, train_tokenizer

DEFAULTS = Optimization(learning_rate=3e-3, batch_size=16, epochs=5, weight_decay=0.01)
MAX_LENGTH = 64
MAX_EVAL_BLOCKS = 256
PROMPT_TOKENS = 8


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("pretrain")
    parameters = spec.parameters
    optimization = DEFAULTS.given(parameters.get("optimization") or {})
    max_length = parameters.get("max_length") or MAX_LENGTH
    job.settings["max_length"] = max_length
    texts = read_texts(job.train_rows)
    held_out = job.held_out(read_texts)

    set_seed(spec.seed)
    tokenizer, model = starting_point(job, parameters, texts, max_length, loading(job, spec))
    apart = Performance.of(parameters).packing
    made = (documents if apart else pack)(tokenizer, texts, max_length, random.Random(spec.seed))
    blocks = arranged(spec, columns(made), max_length)
    eval_blocks = pack(tokenizer, held_out, max_length, random.Random(spec.seed))[:MAX_EVAL_BLOCKS]
    joined = joining(job, spec, model, columns(made[:2]), by_itself=False)
    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    arguments = trainer_arguments(job, spec, optimization, len(blocks), model.num_parameters(), bool(eval_blocks))
    trainer = TokenTrainer(
        model=model,
        args=SFTConfig(
            **{**arguments, **joined},
            max_length=None,  # every block fits
            dataset_kwargs={"skip_prepare_dataset": True},  # blocks are tokens
        ),
        train_dataset=blocks,
        eval_dataset=as_dataset(columns(eval_blocks)) if eval_blocks else None,
        processing_class=tokenizer,
        callbacks=[progress],
        chunk_tokens=Performance.of(parameters).loss_chunk_tokens,
    )
    metrics = train_or_resume(trainer, job, progress)
    if progress.stopped:
        return Outcome(progress.stopped, metrics)

    job.report("phase", message="saving")
    trainer.model.save_pretrained(job.fresh_out())
    tokenizer.save_pretrained(job.out_model)
    write_parity(job, trainer.model, tokenizer, prompts(tokenizer, held_out or texts))
    return Outcome("succeeded", metrics, {"kind": "full", "path": "out/model"})


def starting_point(
    job: JobDir, parameters: dict[str, Any], texts: list[str], max_length: int, shared: dict[str, Any]
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The base that was given, or a new tokenizer of `texts` and random weights. Raises BadInput.

    `shared` is what `distribution.loading` says.
    """
    if job.base.is_dir():
        tokenizer, model = load_base(job.base, shared=shared)
    elif shared:
        raise BadInput("A model that is made anew cannot be shared out by tensor_parallel_size; take zero3 or fsdp.")
    else:
        shape = ModelShape.given(parameters.get("shape") or {})
        tokenizer = train_tokenizer(texts, shape)
        model = fresh_model(tokenizer, shape)
    if max_length > model.config.max_position_embeddings:
        raise BadInput(
            f"max_length {max_length} is more than the context of the model, "
            f"{model.config.max_position_embeddings} tokens; lower it."
        )
    return tokenizer, model


def documents(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int, rng: random.Random) -> list[Tokenized]:
    """Shuffled documents, each closed by the end token, in pieces of at most `length` tokens that stay apart."""
    order = rng.sample(texts, len(texts))
    closed = ([*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id] for text in order)
    pieces = (ids[at : at + length] for ids in closed for at in range(0, len(ids), length))
    return [Tokenized(piece, piece) for piece in pieces]


def pack(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int, rng: random.Random) -> list[Tokenized]:
    """Shuffled documents, each closed by the end token, one after another in blocks of `length` tokens.

    A document may span two blocks and sees its neighbors, as in GPT-2. The tail that fills no block is left
    out, unless it is all there is.
    """
    order = rng.sample(texts, len(texts))
    stream = [i for text in order for i in [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]]
    whole = max(len(stream) - len(stream) % length, min(len(stream), length))
    blocks = (stream[at : at + length] for at in range(0, whole, length))
    return [Tokenized(block, block) for block in blocks]


def prompts(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Prompt]:
    """The beginnings of a few texts."""
    found = []
    for text in texts[:8]:
        words = text[: max(1, len(text) // 2)]
        ids = tokenizer.encode(words, add_special_tokens=False)
        if len(ids) > PROMPT_TOKENS:  # cut the text itself, so that text and tokens agree
            words = tokenizer.decode(ids[:PROMPT_TOKENS]).rstrip("\N{REPLACEMENT CHARACTER}") or text[0]
            ids = tokenizer.encode(words, add_special_tokens=False)
        found.append(Prompt({"prompt": words}, ids))
    return found


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
