"""Supervised fine-tuning on conversations: `python -m services.trainer.recipes.sft JOBDIR`.

Trains an adapter (`lora`, the default) or all weights (`full`); the loss counts answers only.
Knows no service.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.offline import prepare_process

prepare_process()  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from trl import SFTTrainer

from services.trainer.recipes.base_model import load_base
from services.trainer.recipes.conversations import check_answers_only, fitting, prompt_ids
from services.trainer.recipes.optimization import Optimization, trainer_arguments
from services.trainer.recipes.parity import Prompt, write_parity
from services.trainer.recipes.progress import ProgressCallback
from services.trainer.recipes.rows import Message, read_conversations
from services.trainer.recipes.training import train_or_resume

LORA_DEFAULTS = Optimization(learning_rate=5e-3)
FULL_DEFAULTS = Optimization(learning_rate=1e-3)
MAX_LENGTH = 512
MAX_EVAL_ROWS = 256


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec()
    if spec.recipe != "sft":
        raise BadInput(f"spec.json asks for the recipe {spec.recipe!r}; this is sft.")
    parameters = spec.parameters
    lora = None if "full" in parameters else lora_config(parameters.get("lora") or {})
    optimization = (LORA_DEFAULTS if lora else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    conversations = read_conversations(job.train_rows)
    held_out = read_conversations(job.validation_rows) if job.validation_rows.exists() else []

    set_seed(spec.seed)
    tokenizer, model = load_base(job.base)
    if lora is not None:
        check_targets(model, lora)
    max_length = min(parameters.get("max_length") or MAX_LENGTH, model.config.max_position_embeddings)
    kept, rows = fitting(tokenizer, conversations, max_length)
    _, eval_rows = fitting(tokenizer, held_out[:MAX_EVAL_ROWS], max_length)

    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = SFTTrainer(
        model=model,
        args=trainer_arguments(job, spec, optimization, len(rows), model.num_parameters(), bool(eval_rows)),
        train_dataset=Dataset.from_list([asdict(row) for row in rows]),
        eval_dataset=Dataset.from_list([asdict(row) for row in eval_rows]) if eval_rows else None,
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[progress],
    )
    first = range(min(8, len(rows)))
    check_answers_only(tokenizer, trainer.data_collator([trainer.train_dataset[i] for i in first]), kept[:8])
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


def lora_config(parameters: dict[str, Any]) -> LoraConfig:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685); alpha 0 means twice the rank."""
    rank = parameters.get("rank") or 16
    return LoraConfig(
        r=rank,
        lora_alpha=parameters.get("alpha") or 2 * rank,
        lora_dropout=parameters.get("dropout") or 0.0,
        target_modules=parameters.get("target_modules") or "all-linear",
        task_type="CAUSAL_LM",
    )


def check_targets(model: PreTrainedModel, lora: LoraConfig) -> None:
    """Raises BadInput where a named target module is not in the model."""
    if isinstance(lora.target_modules, str):
        return
    names = [name for name, _ in model.named_modules()]
    for target in sorted(lora.target_modules):
        if not any(name == target or name.endswith("." + target) for name in names):
            raise BadInput(f"The base model has no module {target!r}; leave lora.target_modules empty for all linear.")


def save(job: JobDir, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Write `out/model/`, an adapter or full weights with the tokenizer; returns the artifact's kind."""
    out = job.fresh_out()
    if isinstance(model, PeftModel):
        # The folder the base lies in means nothing elsewhere; the registry's lineage says which model it is.
        model.peft_config["default"].base_model_name_or_path = "base"
        model.save_pretrained(out, save_embedding_layers=False)
        (out / "README.md").unlink(missing_ok=True)  # peft's model card: empty headings
        file = out / "adapter_config.json"
        config = json.loads(file.read_text("utf-8"))
        config["target_modules"] = sorted(config["target_modules"])  # a set in peft: another order each time
        file.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
        return "adapter"
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return "full"


def prompts(tokenizer: PreTrainedTokenizerBase, conversations: list[list[Message]], max_length: int) -> list[Prompt]:
    """Questions without their last answer, of those that leave room for one."""
    asked = (c[:-1] for c in conversations[:64] if len(c) > 1)
    made = (Prompt({"messages": messages}, prompt_ids(tokenizer, messages)) for messages in asked)
    return [prompt for prompt in made if len(prompt.token_ids) + 16 <= max_length][:8]


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
