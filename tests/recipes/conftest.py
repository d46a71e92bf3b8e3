"""A tiny base model, pretrained once, for the recipes to tune."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.recipes.asking import undecided
from tests.recipes.bert import tiny_bert
from tests.recipes.jobs import SHAPE, conversations, make_job, texts
from tests.recipes.sharing import Alone


@pytest.fixture(scope="session")
def recipes() -> SimpleNamespace:
    """The recipe modules, on one thread: the same sums in the same order as in a process of their own."""
    import bitsandbytes  # noqa: F401  a recipe hides it where its spec needs none of it
    import torch

    from services.trainer.recipes import pretrain, sft  # imports torch, so not at collection

    torch.set_num_threads(1)
    return SimpleNamespace(pretrain=pretrain, sft=sft)


@pytest.fixture(scope="session")
def pretrained(recipes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job directory of a finished pretraining."""
    from services.trainer.recipes.job.jobdir import run_recorded

    parameters = {
        "shape": SHAPE,
        "max_length": 32,
        "optimization": {"learning_rate": 0.01, "batch_size": 8, "max_steps": 30},
    }
    job = make_job(tmp_path_factory.mktemp("pre") / "job", "pretrain", parameters, texts(), validation=texts(6))
    assert run_recorded(job, recipes.pretrain.train) == 0
    return job


@pytest.fixture(scope="session")
def blank(recipes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base that knows nothing: the same weights on every machine, as nothing was summed for them."""
    from transformers import set_seed

    from services.trainer.recipes.models.fresh_model import ModelShape, fresh_model, train_tokenizer

    folder, shape = tmp_path_factory.mktemp("blank"), ModelShape(**SHAPE)
    tokenizer = train_tokenizer([row["text"] for row in texts()], shape)
    set_seed(1)
    fresh_model(tokenizer, shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert(recipes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BERT that knows nothing."""
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def embedding(recipes: SimpleNamespace) -> ModuleType:
    """The recipe, with the packages that others hid in this process."""
    for name in ("scipy", "sentence_transformers", "sklearn"):
        if sys.modules.get(name, name) is None:
            del sys.modules[name]
    from services.trainer.recipes import embedding

    return embedding


@pytest.fixture(scope="session")
def shareable(recipes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base that knows nothing, of two layers and as many key heads as others."""
    from transformers import set_seed

    from services.trainer.recipes.models.fresh_model import ModelShape, fresh_model, train_tokenizer

    folder = tmp_path_factory.mktemp("shareable")
    shape = ModelShape(**{**SHAPE, "layers": 2, "kv_heads": 2})
    tokenizer = train_tokenizer([row["text"] for row in texts()], shape)
    set_seed(1)
    fresh_model(tokenizer, shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def alone(recipes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """What one process makes of a job, made once: `alone(base, "sft", lora={…})`."""
    return Alone(tmp_path_factory.mktemp("alone"))


@pytest.fixture
def answers_job(blank: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a job directory on `blank`: `answers_job("dpo", rows, validation, optimization=…, **parameters)`."""

    def make(
        recipe: str,
        rows: list[dict[str, Any]],
        validation: Iterable[dict[str, Any]] = (),
        *,
        name: str = "job",
        optimization: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> Path:
        given = {"learning_rate": 0.01, "batch_size": 8, "max_steps": 3, **(optimization or {})}
        parameters = {"optimization": given, **parameters}
        return make_job(tmp_path / name, recipe, parameters, rows, base=blank, validation=validation)

    return make


@pytest.fixture(scope="session")
def wavering(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base that mostly answers the questions of `asks` wrong, but not always."""
    return undecided(blank, tmp_path_factory.mktemp("undecided"))


@pytest.fixture(scope="session")
def leaning(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base that knows what the questions of `asks` are about and answers about half of them right.

    To `wavering` all questions are one: what an adapter, which leaves embeddings as they are, could make likelier there
    would first have to be found.
    """
    return undecided(blank, tmp_path_factory.mktemp("leaning"), right=0.6, steps=150)


@pytest.fixture
def asked_job(wavering: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a job directory on `wavering` or another base, for answers of at most eight tokens."""

    def make(
        recipe: str,
        rows: list[dict[str, Any]],
        validation: Iterable[dict[str, Any]] = (),
        *,
        name: str = "job",
        base: Path = wavering,
        optimization: dict[str, Any] | None = None,
        **parameters: Any,
    ) -> Path:
        given = {"learning_rate": 0.003, "batch_size": 16, "max_steps": 3, **(optimization or {})}
        parameters = {"optimization": given, "max_new_tokens": 8, "max_length": 64, **parameters}
        return make_job(tmp_path / name, recipe, parameters, rows, base=base, validation=validation)

    return make


@pytest.fixture
def sft_job(pretrained: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes an sft job directory: `sft_job(name, optimization=…, rows=…, **parameters)`."""

    def make(
        name: str = "job",
        *,
        optimization: dict[str, Any] | None = None,
        rows: list[dict[str, Any]] | None = None,
        validation: list[dict[str, Any]] | None = None,
        **parameters: Any,
    ) -> Path:
        given = {"learning_rate": 0.01, "batch_size": 8, "max_steps": 12, **(optimization or {})}
        return make_job(
            tmp_path / name,
            "sft",
            {"checkpoint_every_steps": 5, "optimization": given, **parameters},
            conversations() if rows is None else rows,
            base=pretrained / "out" / "model",
            validation=validation or (),
        )

    return make
