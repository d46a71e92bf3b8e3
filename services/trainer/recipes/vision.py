"""Supervised fine-tuning of models that see, on conversations about images:
`python -m services.trainer.recipes.vision JOBDIR`.

Trains an adapter (`lora`, the default) or all weights (`full`) of the language model, and of the vision tower and the
projector where that is asked for; the loss counts the last answer only. Knows no service.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.offline import prepare_process

prepare_process("torchvision")  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from services.trainer.recipes import torchvision_schemas  # noqa: F401  before transformers imports torchvision

# isort: split
import torch
from peft import PeftConfig, get_peft_model
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments, set_seed

from services.trainer.recipes.conversations import IGNORED
from services.trainer.recipes.optimization import Optimization, trainer_arguments
from services.trainer.recipes.parity import NEW_TOKENS, PROMPTS, Prompt, write_parity
from services.trainer.recipes.picture_batches import Collator, Template, check_seen, fitting
from services.trainer.recipes.pictures import Seen, data_url, open_picture, read_seen, small_copy
from services.trainer.recipes.progress import ProgressCallback
from services.trainer.recipes.sighted_model import PartOfModel, confine, freeze, load_sighted
from services.trainer.recipes.training import train_or_resume
from services.trainer.recipes.tuning import adapter_config, save

ADAPTER_DEFAULTS = Optimization(learning_rate=2e-4, batch_size=8)
FULL_DEFAULTS = Optimization(learning_rate=2e-5, batch_size=8)
MAX_LENGTH = 2048
MAX_EVAL_ROWS = 256
#: As many images as an engine of ours takes in one request.
MOST_IMAGES = 16


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec()
    if spec.recipe != "vision":
        raise BadInput(f"spec.json asks for the recipe {spec.recipe!r}; this is vision.")
    parameters = spec.parameters
    adapter = adapter_config(parameters)
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    seen = read_seen(job.train_rows)
    held_out = read_seen(job.validation_rows)[:MAX_EVAL_ROWS] if job.validation_rows.exists() else []

    set_seed(spec.seed)
    processor, model = load_sighted(job.base)
    template = Template(processor)
    positions = model.config.get_text_config().max_position_embeddings
    max_length = min(parameters.get("max_length") or MAX_LENGTH, positions)
    job.settings["max_length"] = max_length
    parts = trained_parts(parameters)
    rows, eval_rows = (fitting(template, some, max_length) for some in (seen, held_out))

    arguments = trainer_arguments(job, spec, optimization, len(rows), model.num_parameters(), bool(eval_rows))
    job.settings["trained_parts"] = ", ".join(parts)
    progress = ProgressCallback(job, parameters.get("log_every_steps") or 1)
    trainer = Answering(
        model=tuned(model, adapter, parts, arguments),
        args=TrainingArguments(**arguments, remove_unused_columns=False, label_names=["labels"]),
        data_collator=Collator(template),
        train_dataset=rows,
        eval_dataset=eval_rows or None,
        processing_class=processor,
        compute_metrics=grades,
        callbacks=[progress],
    )
    check_seen(template, trainer.data_collator(rows[:8]), rows[:8])
    metrics = {"rows_dropped": float(len(seen) - len(rows)), **trained(trainer, job, progress)}
    if progress.stopped:
        return Outcome(progress.stopped, metrics)
    graded = [entry["eval_exact_match"] for entry in trainer.state.log_history if "eval_exact_match" in entry]
    metrics |= {"eval_exact_match": graded[-1]} if graded else {}

    job.report("phase", message="saving")
    kind = save(job, trainer.model, processor)
    write_parity(job, trainer.model, processor.tokenizer, prompts(template, held_out or seen, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def trained_parts(parameters: dict[str, Any]) -> list[PartOfModel]:
    """The language model, and what the spec names beside it."""
    asked: dict[PartOfModel, str] = {"tower": "train_vision_tower", "projector": "train_projector"}
    return ["language", *(part for part, field in asked.items() if parameters.get(field))]


def tuned(
    model: PreTrainedModel, adapter: PeftConfig | None, trained: list[PartOfModel], arguments: dict[str, Any]
) -> Any:
    """The model with what is trained of it, by an adapter or as it is. Raises BadInput as `confine` does."""
    if adapter is None:
        freeze(model, trained)
    else:
        confine(model, adapter, trained)
        model = get_peft_model(model, adapter)
    if arguments["gradient_checkpointing"]:
        model.enable_input_require_grads()  # else nothing before the first trained weight asks for a gradient
    return model


def trained(trainer: Trainer, job: JobDir, progress: ProgressCallback) -> dict[str, float]:
    """`train_or_resume`; of an image that a loading process cannot open, its sentence without torch's account of it."""
    try:
        return train_or_resume(trainer, job, progress)
    except BadInput as error:
        raise BadInput(str(error).strip().rsplit(f"{BadInput.__name__}: ", 1)[-1]) from error


class Answering(Trainer):
    """Keeps of an evaluation the likeliest token after each, and not the logits or whatever else a model gives."""

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        given = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, given, return_outputs=True)
        return loss.detach(), outputs.logits.argmax(-1), given["labels"]


def grades(found: EvalPrediction) -> dict[str, float]:
    """`exact_match`: the share of answers that greedy decoding gives, whose tokens are all the likeliest in turn."""
    told, there = torch.as_tensor(found.predictions)[:, :-1], torch.as_tensor(found.label_ids)[:, 1:]
    right = ((told == there) | (there == IGNORED)).all(1)
    return {"exact_match": right.float().mean().item()}


def prompts(template: Template, rows: list[Seen], max_length: int) -> list[Prompt]:
    """What rows ask, without their last answer, of those that leave room for one; large images scaled down."""
    return list(islice(_prompts(template, rows[:64], max_length), PROMPTS))


def _prompts(template: Template, rows: list[Seen], max_length: int) -> Iterator[Prompt]:
    for row in rows:
        if len(row.images) > MOST_IMAGES:
            continue
        asked = row.messages[:-1]
        images = [small_copy(file) for file in row.images]
        batch = template.batch([template.prompt(asked)], [[open_picture(image) for image in images]])
        token_ids = batch.pop("input_ids")[0].tolist()
        del batch["attention_mask"]
        if len(token_ids) + NEW_TOKENS <= max_length:
            yield Prompt({"messages": as_asked(asked, [data_url(image) for image in images])}, token_ids, batch)


def as_asked(messages: list[dict[str, Any]], urls: list[str]) -> list[dict[str, Any]]:
    """Messages in the words of an OpenAI client: images as parts with URLs, texts without any as strings."""
    left = iter(urls)

    def content(parts: list[dict[str, str]]) -> Any:
        if len(parts) == 1 and parts[0]["type"] == "text":
            return parts[0]["text"]
        return [
            part if part["type"] == "text" else {"type": "image_url", "image_url": {"url": next(left)}}
            for part in parts
        ]

    return [{"role": message["role"], "content": content(message["content"])} for message in messages]


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
