"""What a recipe alone is told by the words of `sluice train` and of the client."""

from typing import Any

import pytest

from kit.rpc.errors import Invalid
from sluice.client import specs
from sluice.trainer import v1 as trainer


def made(recipe: str, **told: Any) -> Any:
    task_type = recipe.replace("_", "-")
    spec = specs.training_spec("projects/p", dataset="d@1", model="m", task_type=task_type, recipe=recipe, **told)
    return getattr(spec, recipe)


def test_a_teacher_may_have_its_short_name() -> None:
    found = made("gkd", teacher_model_version="big@stable", lmbda=0, seq_kd="true", max_new_tokens=9)
    assert found.teacher_model_version == "projects/p/models/big/versions/stable"
    assert found.HasField("lmbda") and found.seq_kd and found.max_new_tokens == 9
    full = "projects/p/models/big/versions/3"
    assert made("gkd", teacher_model_version=full).teacher_model_version == full


@pytest.mark.parametrize(("said", "meant"), [("true", True), ("False", False), (True, True), (1, True)])
def test_true_and_false_may_be_words(said: object, meant: bool) -> None:
    assert made("sequence_classification", balance_classes=said).balance_classes is meant


def test_where_images_and_text_meet_is_a_word() -> None:
    found = made("fusion", fusion="late", label_names="a,b", train_vision_tower=True)
    assert found.fusion == trainer.FUSION_LATE and list(found.label_names) == ["a", "b"] and found.train_vision_tower


@pytest.mark.parametrize(
    ("recipe", "told", "sentence"),
    [
        ("gkd", {"seq_kd": "maybe"}, "seq-kd is `maybe`; take true or false"),
        ("gkd", {"lmbda": "half"}, "lmbda is `half`; take a number"),
        ("gkd", {"max_new_tokens": 1.5}, "max-new-tokens is `1.5`; take a number"),
        ("gkd", {"teacher_model_version": 7}, "teacher-model-version is `7`; take a word"),
        ("sft", {"lmbda": 0.5}, "the recipe `sft` takes no lmbda; leave it out"),
        ("fusion", {"fusion": "middle"}, "fusion is `middle`; take one of early, late"),
        ("vision", {"fusion": "late"}, "the recipe `vision` takes no fusion; leave it out"),
        ("token_classification", {"multi_label": "true"}, "takes no multi-label; leave it out"),
    ],
)
def test_what_does_not_fit_is_named(recipe: str, told: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        made(recipe, **told)
