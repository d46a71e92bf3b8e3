"""Every recipe that several processes share: the losses and weights of one, and what each of them held."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from services.trainer.distribution import RECIPES
from tests.recipes.jobs import result
from tests.recipes.sharing import KINDS, Alone, check_held, check_same, job_on, train

pytestmark = [pytest.mark.training, pytest.mark.prove, pytest.mark.filterwarnings("ignore")]

ENCODERS = ("embedding", "reranker", "sequence_classification", "token_classification")
#: Those of `test_distribution.py`.
OTHERS = ("pretrain", "sft")


@pytest.fixture(scope="session")
def still_bert(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose processes would not each forget something else."""
    import shutil

    folder = tmp_path_factory.mktemp("still") / "bert"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config | off))
    return folder


@pytest.mark.parametrize(
    ("recipe", "kind"), [(recipe, kind) for recipe, kinds in RECIPES.items() if recipe not in OTHERS for kind in kinds]
)
def test_it_trains_as_one_process_does(
    recipe: str, kind: str, alone: Alone, shareable: Path, still_bert: Path, embedding: ModuleType, tmp_path: Path
) -> None:
    base = still_bert if recipe in ENCODERS else shareable
    job = job_on(base, tmp_path / "job", recipe, 2, distribution={"devices": 2, **KINDS[kind]})
    said = train(job)
    check_same(job, alone(base, recipe))
    check_held(said, kind)
    theirs = result(alone(base, recipe))["metrics"]
    graded = {name: value for name, value in theirs.items() if name.startswith("eval_") and name != "eval_loss"}
    assert {name: said["metrics"][name] for name in graded} == pytest.approx(graded, abs=1e-4)


@pytest.mark.parametrize("recipe", ["orpo", "rm", "embedding", "sequence_classification"])
def test_adapters_too(recipe: str, alone: Alone, shareable: Path, still_bert: Path, tmp_path: Path) -> None:
    base, adapter = still_bert if recipe in ENCODERS else shareable, {"lora": {"rank": 4}}
    job = job_on(base, tmp_path / "job", recipe, 2, distribution={"devices": 2, **KINDS["zero2"]}, **adapter)
    train(job)
    check_same(job, alone(base, recipe, **adapter))
