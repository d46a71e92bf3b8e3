"""Evidence of what was trained and by what, read from the trainer afterwards; knows no task."""

import hashlib
from collections import Counter
from dataclasses import fields

import torch
from peft import PeftModel
from transformers import PreTrainedModel, Trainer, TrainingArguments

from services.trainer.recipes.models.stored import unseen

#: The settings of every trainer that a result tells; what a method adds to them is told whole.
TOLD = (
    *("max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type"),
    *("warmup_steps", "weight_decay", "max_grad_norm", "optim", "optim_args", "adam_beta1", "adam_beta2"),
    *("adam_epsilon", "bf16", "fp16", "tf32", "gradient_checkpointing", "label_smoothing_factor", "seed", "data_seed"),
    *("train_sampling_strategy", "dataloader_num_workers", "eval_steps", "save_steps", "torch_compile", "use_cpu"),
    "dataloader_pin_memory",
)


def counted(model: PreTrainedModel | PeftModel) -> dict[str, float]:
    """`trainable_parameters` and `total_parameters`; of quantized ones as many as they stand for."""
    if isinstance(model, PeftModel):
        trainable, total = model.get_nb_trainable_parameters()
    else:
        total = sum(weight.numel() for weight in model.parameters())
        trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return {"trainable_parameters": float(trainable), "total_parameters": float(total + unseen(model))}


def optimizer_found(trainer: Trainer) -> dict[str, str]:
    """`optimizer`, the class that made the updates, and `optimizer_states`, how many numbers of which type it held."""
    optimizer = trainer.optimizer
    while hasattr(optimizer, "optimizer"):  # accelerate wraps it, and DeepSpeed
        optimizer = optimizer.optimizer
    held: Counter[str] = Counter()
    for state in optimizer.state.values():
        for tensor in state.values():
            if torch.is_tensor(tensor) and tensor.dim():  # a count of steps has no dimension
                paged = "paged " if getattr(tensor, "is_paged", False) else ""
                held[paged + str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    kind = type(optimizer)
    return {
        "optimizer": f"{kind.__module__}.{kind.__qualname__}",
        "optimizer_states": ", ".join(f"{name} {held[name]}" for name in sorted(held)) or "none",
    }


def settings_found(trainer: Trainer) -> dict[str, str | float | None]:
    """What the trainer was set to, defaults included; in the words of transformers and trl."""
    common = {each.name for each in fields(TrainingArguments)}
    own = (each.name for each in fields(trainer.args) if each.name not in common)
    found = {name: getattr(trainer.args, name, None) for name in (*TOLD, *own)}
    told = {name: getattr(value, "value", value) for name, value in found.items()}  # an enum's word
    return {name: value for name, value in told.items() if isinstance(value, str | int | float)}


def template_digest(trainer: Trainer) -> dict[str, str]:
    """`template`, SHA-256 of the chat template that the rows went through; nothing where there is none."""
    template = getattr(trainer.processing_class, "chat_template", None)
    if not isinstance(template, str):
        return {}
    return {"template": "sha256:" + hashlib.sha256(template.encode()).hexdigest()}
