"""A base and an adapter in this process, for scripts that look at a model; a job of the suite makes its own.

torch, transformers and peft are imported when they are needed: they are not among what the client installs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.rpc.errors import Invalid, NotFound
from kit.rpc.names import slug
from sluice.client import Client, mirrors
from sluice.client.imports import model_files
from sluice.compat.bases import caches
from sluice.compat.said import say

HERE = "in this process, on this machine; a job of the suite (SwiftTrainer) makes its own"

#: What transformers imports of its own accord where it is installed, and a language model does not need.
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


def prepare_model_and_tokenizer(
    model_name_or_path: str | Path, *, client: Client | None = None, **settings: Any
) -> tuple[Any, Any]:
    """Loads a causal model and its tokenizer into this process: local, and no part of any job.

    A folder is read where it is; an id such as `qwen/Qwen-7B` from a cache of this machine, else it is downloaded once
    from the suite (role `downloader`). Nothing is fetched from a hub, and no code that comes with a model is run.
    ``settings`` go to ``AutoModelForCausalLM.from_pretrained``. Raises NotFound, and Invalid for weights that are not
    safetensors or where transformers is not installed.
    """
    if settings.get("trust_remote_code"):
        raise Invalid("trust_remote_code: code that comes with a model is never run; leave it out")
    folder = _folder(model_name_or_path, client)
    model_files(folder)  # safetensors alone, and no code: what a job would refuse is refused here
    transformers = _library("transformers")
    say(f"{model_name_or_path} is loaded {HERE}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, **settings)
    return model, tokenizer


#: The name that newer documents have for it.
prepare_model = prepare_model_and_tokenizer


@dataclass
class LoRAConfig:
    """An adapter by peft's words; a job of the suite takes lora_rank, lora_alpha, lora_dropout and target_modules."""

    r: int = 8
    target_modules: Sequence[str] | str | None = None
    lora_alpha: float = 32
    lora_dropout: float = 0.05
    task_type: str | None = "CAUSAL_LM"
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False


class Swift:
    """``Swift.prepare_model(model, LoRAConfig(…))``."""

    @staticmethod
    def prepare_model(model: Any, config: LoRAConfig) -> Any:
        """Puts an adapter on a model of this process, and returns peft's model: local, and no part of any job.

        Raises Invalid for a config that is none, and where peft is not installed.
        """
        if not isinstance(config, LoRAConfig):
            raise Invalid(
                f"config is a {type(config).__name__}; give a LoRAConfig. Other tuners are those of jobs: "
                "TrainingArguments(tuner=…), see `sluice train --help`"
            )
        peft = _library("peft")
        say(f"the adapter is put on the model {HERE}")
        settings = {name: value for name, value in vars(config).items() if value is not None}
        if not isinstance(config.target_modules, str | None):
            settings["target_modules"] = list(config.target_modules)
        return peft.get_peft_model(model, peft.LoraConfig(**settings))


def _folder(given: str | Path, client: Client | None) -> Path:
    """Where the model lies here. Raises NotFound saying how it is brought."""
    folder = Path(given).expanduser()
    if folder.is_dir():
        return folder
    name = str(given)
    if mirrors.is_source_id(name):
        for cache in caches(os.environ):
            try:
                return mirrors.find(cache, name)
            except NotFound:
                continue
    client = client or Client()
    version = client.models.version(name)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = version.artifact.digest.removeprefix("sha256:")[:16]
    folder = home / "sluice" / "models" / f"{slug(name)}-{digest}"
    client.models.download(version.name, folder)
    return folder


def _library(name: str) -> Any:
    """transformers or peft, without the hub, and without companions that were built for another torch."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for companion in COMPANIONS:
        try:
            importlib.import_module(companion)
        except (RuntimeError, OSError):  # a build for CUDA beside a torch for processors: transformers fails over it
            sys.modules[companion] = None  # type: ignore[assignment]
        except ImportError:
            continue
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Invalid(f"{error.name} is not installed here; install torch, transformers and peft") from None
