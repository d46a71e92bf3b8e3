"""Supervised fine-tuning on conversations: `python -m services.trainer.recipes.sft JOBDIR`.

Trains an adapter (`lora`, the default) or all weights (`full`); the loss counts answers only.
Knows no service.
"""

import sys
from pathlib import Path

from services.trainer.performance import Performance
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from transformers import PreTrainedTokenizerBase, set_seed
from trl import SFTConfig

from services.trainer.recipes.data.conversations import check_answers_only, prompt_ids
from services.trainer.recipes.data.rows import Message, read_conversations
from services.trainer.recipes.data.tokens import as_dataset, conversation_tokens, fitting
from services.trainer.recipes.distributed.distribution import loading
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import Prompt, write_parity
from services.trainer.recipes.learning.performance import arranged, joining
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.token_loss import TokenTrainer
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.base_model import load_base, longest_of
from services.trainer.recipes.models.quantization import quantization_config
from services.trainer.recipes.models.stored import number_of_weights
from services.trainer.recipes.models.tuning import adapter_config, check_targets, save

ADAPTER_DEFAULTS = Optimization(learning_rate=5e-3)
FULL_DEFAULTS = Optimization(learning_rate=1e-3)
MAX_LENGTH = 512
MAX_EVAL_ROWS = 256


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec("sft")
    parameters = spec.parameters
    adapter = adapter_config(parameters)
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    conversations = read_conversations(job.train_rows)
    held_out = job.held_out(read_conversations)

    set_seed(spec.seed)
    tokenizer, model = load_base(job.base, quantization_config(parameters), loading(job, spec))
    if adapter is not None:
        check_targets(model, adapter)
    max_length = longest_of(parameters.get("max_length"), MAX_LENGTH, model)
    job.settings["max_length"] = max_length
    rows, kept = fitting(conversation_tokens(job, "train", tokenizer, conversations), max_length)
    held_out_rows = conversation_tokens(job, "validation", tokenizer, held_out[:MAX_EVAL_ROWS])
    eval_rows, _ = fitting(held_out_rows, max_length)
    joined, dataset = joining(job, spec, model, rows, by_itself=True), arranged(spec, rows, max_length)

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    arguments = trainer_arguments(job, spec, optimization, len(dataset), number_of_weights(model), bool(len(eval_rows)))
    trainer = TokenTrainer(
        model=model,
        args=SFTConfig(
            **{**arguments, **joined},
            max_length=None,  # what is too long is left out above
            dataset_kwargs={"skip_prepare_dataset": True},  # rows are tokens
        ),
        train_dataset=dataset,
        eval_dataset=as_dataset(eval_rows) if len(eval_rows) else None,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[progress],
        chunk_tokens=Performance.of(parameters).loss_chunk_tokens,
    )
    first = rows.slice(0, 8).select(["input_ids", "labels"]).to_pylist()
    check_answers_only(tokenizer, trainer.data_collator(first), [conversations[number] for number in kept[:8]])
    metrics = {
        **train_or_resume(trainer, job, progress),
        "rows_dropped": float(len(conversations) - len(rows)),
    }
    if progress.stopped:
        return Outcome(progress.stopped, metrics)

    job.report("phase", message="saving")
    kind = save(job, trainer.model, tokenizer)
    write_parity(job, trainer.model, tokenizer, prompts(tokenizer, held_out or conversations, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def prompts(tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]], max_length: int) -> list[Prompt]:
    """Questions without their last answer, of those that leave room for one."""
    asked = (c[:-1] for c in conversations[:64] if len(c) > 1)
    made = (Prompt({"messages": messages}, prompt_ids(tokenizer, messages)) for messages in asked)
    return [prompt for prompt in made if len(prompt.token_ids) + 16 <= max_length][:8]


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
