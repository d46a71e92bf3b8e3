"""Supervised fine-tuning of models that see (`vision`) or hear (`audio`), on conversations about images, videos and
sounds: `python -m services.trainer.recipes.vision JOBDIR`.

Trains an adapter (`lora`, the default) or all weights (`full`) of the language model, and of the tower and the
projector where that is asked for; the loss counts the last answer only. Knows no service.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Outcome, run_recorded
from services.trainer.recipes.job.offline import prepare_process

prepare_process("torchvision")  # before torch and its kin, which the imports below bring
# ruff: noqa: E402

from services.trainer.recipes.models import torchvision_schemas  # noqa: F401  before transformers imports torchvision

# isort: split
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments, set_seed

from services.trainer.recipes.data.conversations import IGNORED
from services.trainer.recipes.data.picture_batches import Collator, Template, check_mixed, check_seen, fitting
from services.trainer.recipes.data.pictures import Seen, data_url, plain, read_seen, small_copies, small_copy
from services.trainer.recipes.data.sounds import brief_copy, format_of
from services.trainer.recipes.learning.optimization import Optimization, trainer_arguments
from services.trainer.recipes.learning.parity import NEW_TOKENS, PROMPTS, Prompt, write_parity
from services.trainer.recipes.learning.progress import ProgressCallback
from services.trainer.recipes.learning.training import train_or_resume
from services.trainer.recipes.models.base_model import longest_of
from services.trainer.recipes.models.sighted_model import (
    confine,
    freeze,
    load_hearing,
    load_sighted,
    read_config,
)
from services.trainer.recipes.models.tuning import adapter_config, save
from sluice.model_parts import PartOfModel
from sluice.senses import takes, takes_adapters, takes_adapters_of_towers

ADAPTER_DEFAULTS = Optimization(learning_rate=2e-4, batch_size=8)
FULL_DEFAULTS = Optimization(learning_rate=2e-5, batch_size=8)
MAX_LENGTH = 2048
MAX_EVAL_ROWS = 256
LOADS = {"vision": load_sighted, "audio": load_hearing}


def train(job: JobDir) -> Outcome:
    job.report("phase", message="reading")
    spec = job.spec(*LOADS)
    parameters = spec.parameters
    adapter = adapter_config(parameters)
    optimization = (ADAPTER_DEFAULTS if adapter else FULL_DEFAULTS).given(parameters.get("optimization") or {})
    config = read_config(job.base)
    read = partial(read_seen, senses=takes(config))
    seen, held_out = read(job.train_rows), job.held_out(read, MAX_EVAL_ROWS)

    set_seed(spec.seed)
    processor, model = LOADS[spec.recipe](job.base)
    template = Template(processor)
    max_length = longest_of(parameters.get("max_length"), MAX_LENGTH, model)
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
    check_mixed(template, rows + eval_rows)
    check_seen(template, trainer.data_collator(rows[:8]), rows[:8])
    metrics = {"rows_dropped": float(len(seen) - len(rows)), **trained(trainer, job, progress)}
    if progress.stopped:
        return Outcome(progress.stopped, metrics)
    graded = [entry["eval_exact_match"] for entry in trainer.state.log_history if "eval_exact_match" in entry]
    metrics |= {"eval_exact_match": graded[-1]} if graded else {}

    job.report("phase", message="saving")
    model = trainer.model if served_beside(config, parts) else merged(trainer.model)
    kind = save(job, model, processor)
    write_parity(job, model, processor.tokenizer, prompts(template, held_out or seen, max_length))
    return Outcome("succeeded", metrics, {"kind": kind, "path": "out/model"})


def trained_parts(parameters: dict[str, Any]) -> list[PartOfModel]:
    """The language model, and what the spec names beside it."""
    asked: dict[PartOfModel, str] = {
        "tower": "train_vision_tower",
        "audio_tower": "train_audio_tower",
        "projector": "train_projector",
    }
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


def served_beside(config: dict[str, Any], parts: list[PartOfModel]) -> bool:
    """Whether engines serve an adapter of these parts on its base."""
    return takes_adapters(config) if parts == ["language"] else takes_adapters_of_towers(config)


def merged(model: Any) -> Any:
    """The model with its adapter in its weights."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


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
    """What rows ask, without their last answer, of those that leave room for one; what is large is made small."""
    return list(islice(_prompts(template, rows[:64], max_length), PROMPTS))


def _prompts(template: Template, rows: list[Seen], max_length: int) -> Iterator[Prompt]:
    for row in rows:
        asked = replace(row, messages=row.messages[:-1])
        images, sounds = [small_copy(file) for file in row.images], [brief_copy(file) for file in row.sounds]
        videos = [small_copies(video) for video in row.videos]
        batch = template.opened([template.prompt(asked.messages)], [images], videos, sounds)
        token_ids = batch.pop("input_ids")[0].tolist()
        del batch["attention_mask"]
        if len(token_ids) + NEW_TOKENS <= max_length:
            yield Prompt({"messages": as_asked(asked.messages, images, videos, sounds)}, token_ids, batch)


def as_asked(
    messages: list[dict[str, Any]], images: list[bytes], videos: list[list[bytes]], sounds: list[bytes]
) -> list[dict[str, Any]]:
    """Messages in the words of an OpenAI client: images, videos and sounds as parts, texts without any as strings."""
    left = {"image": iter(images), "video": iter(videos), "audio": iter(sounds)}

    def part(of: dict[str, str]) -> dict[str, Any]:
        kind, content = of["type"], next(left[of["type"]]) if of["type"] in left else None
        match kind:
            case "image":
                return {"type": "image_url", "image_url": {"url": data_url(content)}}
            case "video":
                frames = ",".join(map(plain, content))
                return {"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}
            case "audio":
                return {"type": "input_audio", "input_audio": {"data": plain(content), "format": format_of(content)}}
        return of

    def content(parts: list[dict[str, str]]) -> Any:
        if len(parts) == 1 and parts[0]["type"] == "text":
            return parts[0]["text"]
        return [part(each) for each in parts]

    return [{"role": message["role"], "content": content(message["content"])} for message in messages]


if __name__ == "__main__":
    sys.exit(run_recorded(Path(sys.argv[1]), train))
