"""What a job is told, in the words of the field, and the same in Sluice's; it asks no suite.

A word that asks for what Sluice does otherwise is refused with the way that Sluice has; none is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from kit.rpc.errors import Invalid
from kit.rpc.names import slug
from sluice.client import specs

#: The field's words (transformers' and ms-swift's) for what is a hyperparameter here.
SAME = {
    "per_device_train_batch_size": "batch_size",
    "num_train_epochs": "epochs",
    "max_epochs": "epochs",
    "max_seq_length": "max_length",
    "save_steps": "checkpoint_every_steps",
    "lora_target_modules": "target_modules",
}
SCHEDULES = {"constant_with_warmup": "constant"}
OPTIMIZERS = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "adamw_bnb_8bit": "adamw_8bit"}
OPTIMIZERS |= {"paged_adamw_8bit": "paged_adamw_8bit", "galore_adamw": "galore", "apollo_adamw": "apollo"}
QUANTIZATIONS = {4: "nf4", 8: "int8"}

ALWAYS_LOGGED = "each step's figures are kept; leave it out, and read them from steps.jsonl or TensorBoard"
#: What is done otherwise here, and how.
OTHERWISE = {
    "logging_steps": ALWAYS_LOGGED,
    "logging_dir": "event files for TensorBoard lie in output_dir, beside the weights; leave it out",
    "report_to": ALWAYS_LOGGED,
    "eval_strategy": "held-out rows are asked whenever a checkpoint is kept; say how often with save_steps",
    "evaluation_strategy": "held-out rows are asked whenever a checkpoint is kept; say how often with save_steps",
    "eval_steps": "held-out rows are asked whenever a checkpoint is kept; say how often with save_steps",
    "per_device_eval_batch_size": "held-out rows are asked in batches of the training's size; leave it out",
    "save_strategy": "a job that breaks off goes on from a checkpoint; say how often with save_steps",
    "save_total_limit": "the two newest checkpoints are kept while a job runs; leave it out",
    "load_best_model_at_end": "the gate judges what a job leaves on rows that it did not see; leave it out",
    "metric_for_best_model": "the gate of the task type says which metrics count: `sluice gate policies show`",
    "resume_from_checkpoint": "a job that broke off is taken up by `sluice jobs retry JOB`",
    "overwrite_output_dir": "each job has a folder of its own below output_dir; leave it out",
    "fp16": "Sluice trains in float32 or bfloat16; write bf16=True",
    "deepspeed": "how a job is spread is said by hyperparameters of Sluice, not by a file: see `sluice train --help`",
    "fsdp": "how a job is spread is said by hyperparameters of Sluice, not by a file: see `sluice train --help`",
    "trust_remote_code": "code that comes with a model is never run; take a release that transformers loads by itself",
    "push_to_hub": "what a job leaves becomes a model version of the suite; leave it out",
    "split_dataset_ratio": "rows fall into train, validation and test by a hash of what they say; leave it out",
    "remove_unused_columns": "names of columns that were not read are told with the dataset's version; leave it out",
    "group_by_length": "how rows share a batch is said by hyperparameters of Sluice; leave it out",
}


class TrainingArguments:
    """What a job of the suite is told: ``TrainingArguments(task_type="dpo", model_name_or_path=…, dataset=…, …)``.

    ``model_name_or_path`` is the base: a folder here, an id such as `Qwen/Qwen3-7B` that was imported or lies in a
    cache here, or a version of a model of the suite. ``dataset`` is a file here or a dataset of the suite, ``assets``
    the folder of the images that its rows name. ``model`` is what the result is called; without it, the last part of
    ``output_dir``. Everything else is a hyperparameter, in the words of transformers, ms-swift or `sluice train`.

    Raises Invalid for what is not known, and for what Sluice does otherwise, naming the way it does.
    """

    def __init__(
        self,
        output_dir: str | Path = "output",
        *,
        task_type: str,
        model_name_or_path: str | Path = "",
        dataset: str | Path | Sequence[str | Path] = "",
        model: str = "",
        endpoint: str = "",
        gate_policy: str = "",
        assets: str | Path = "",
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.task_type = task_type
        self.output_dir = Path(output_dir)
        self.model_name_or_path = model_name_or_path
        self.dataset = _one(dataset)
        self.endpoint, self.gate_policy, self.assets, self.seed = endpoint, gate_policy, assets, seed
        self.hyperparameters = hyperparameters(task_type, settings)
        self.model = slug(model or self._called())

    def _called(self) -> str:
        if self.output_dir.name not in ("", "output"):
            return self.output_dir.name
        base = Path(str(self.model_name_or_path).partition("@")[0]).name
        return f"{base}-{self.task_type}" if base else self.task_type


class MultiModalConfig(TrainingArguments):
    """The same for a model that sees or hears: ``MultiModalConfig(model_name="qwen-vl-7b", task="vqa", …)``."""

    def __init__(
        self,
        model_name: str | Path,
        train_dataset: str | Path = "",
        task: str = "vqa",
        output_dir: str | Path = "output",
        **settings: Any,
    ) -> None:
        super().__init__(output_dir, task_type=task, model_name_or_path=model_name, dataset=train_dataset, **settings)


def hyperparameters(task_type: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sluice's hyperparameters for the field's words; a word that is None asks for nothing. Raises Invalid."""
    known = get_type_hints(specs.Hyperparameters)
    found: dict[str, Any] = {}
    for word, value in settings.items():
        if value is None or (word == "fp16" and not value):
            continue
        if word in MEANT:
            told = MEANT[word](task_type, value, settings)
        elif (name := SAME.get(word, word)) in known:
            told = {name: value}
        elif word in OTHERWISE:
            raise Invalid(f"`{word}`: {OTHERWISE[word]}")
        else:
            raise Invalid(f"there is no argument `{word}`; there are {', '.join(sorted({*known, *SAME, *MEANT}))}")
        for name, value in told.items():
            if found.setdefault(name, value) != value:
                raise Invalid(f"`{word}` says {name} {value}, and another argument {found[name]}; say it once")
    return found


def _one(dataset: str | Path | Sequence[str | Path]) -> str | Path:
    if isinstance(dataset, str | Path):
        return dataset
    if len(dataset) != 1:
        raise Invalid(
            f"dataset names {len(dataset)} things; a job reads one dataset, so put them together before: "
            "`sluice dataset upload FILE --append`"
        )
    return dataset[0]


def _labels(task_type: str, value: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    names = settings.get("label_names")
    if names is None:
        raise Invalid(f"num_labels is {value}, but not which; say label_names, or leave it out: the rows tell")
    if len(names) != value:
        raise Invalid(f"num_labels is {value}, and label_names has {len(names)}; leave num_labels out")
    return {}


def _in_batch(task_type: str, value: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    if bool(value) != (task_type == "embedding"):
        way = "always compares with" if task_type == "embedding" else "never takes"
        raise Invalid(
            f"use_inbatch_negatives is {value}, but `{task_type}` {way} the other rows of its batch as negatives; "
            "leave it out, and say how many of a row's own are taken with `negatives`"
        )
    return {}


def _precision(task_type: str, value: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"precision": "bfloat16" if value else "float32"}


def _use_lora(task_type: str, value: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"tuner": "lora" if value else "full"}


def _tuner(task_type: str, value: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"tuner": value}


def _schedule(task_type: str, value: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"schedule": SCHEDULES.get(value, value)}


def _optimizer(task_type: str, value: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"optimizer": OPTIMIZERS.get(value, value)}


def _bits(task_type: str, value: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    if value not in QUANTIZATIONS:
        raise Invalid(f"the base can be held in 4 or 8 bits, not {value}; take one of them, or leave it out")
    return {"quantization": QUANTIZATIONS[value]}


#: Words whose values mean something else here.
MEANT: dict[str, Callable[[str, Any, Mapping[str, Any]], dict[str, Any]]] = {
    "num_labels": _labels,
    "use_inbatch_negatives": _in_batch,
    "bf16": _precision,
    "use_lora": _use_lora,
    "train_type": _tuner,
    "sft_type": _tuner,
    "lr_scheduler_type": _schedule,
    "optim": _optimizer,
    "quantization_bit": _bits,
    "quant_bits": _bits,
}
