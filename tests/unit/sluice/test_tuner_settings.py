"""What a tuner is told by the words of `sluice train` and of the client."""

from typing import Any, get_type_hints

import pytest

from kit.rpc.errors import Invalid
from sluice.client import specs
from sluice.trainer import v1 as trainer


def filled(**told: Any) -> trainer.TrainingJobSpec:
    spec = trainer.TrainingJobSpec()
    specs.fill_recipe(spec, "sft", told)
    return spec


def test_every_setting_of_every_tuner_is_a_hyperparameter() -> None:
    assert set(get_type_hints(specs.Hyperparameters)) >= specs.OF_TUNERS


@pytest.mark.parametrize(
    ("told", "tuner"),
    [
        ({"tuner": "qlora"}, {"lora": trainer.LoraTuner(rank=16, quantization=trainer.QUANTIZATION_NF4)}),
        (
            {"tuner": "qlora", "quantization": "int8", "lora_rank": 4},
            {"lora": trainer.LoraTuner(rank=4, quantization=trainer.QUANTIZATION_INT8)},
        ),
        (
            {"lora_variant": "lora_plus", "lora_learning_rate_ratio": 8},
            {"lora": trainer.LoraTuner(rank=16, variant=trainer.LORA_VARIANT_LORA_PLUS, learning_rate_ratio=8)},
        ),
        ({"adalora_rank": 4}, {"adalora": trainer.AdaloraTuner(rank=4)}),
        ({"tuner": "vera", "vera_rank": 32}, {"vera": trainer.VeraTuner(rank=32)}),
        (
            {"tuner": "oft", "oft_block_size": 8, "target_modules": "q_proj, k_proj"},
            {"oft": trainer.OftTuner(block_size=8, target_modules=["q_proj", "k_proj"])},
        ),
        ({"target_modules": ["q_proj"]}, {"lora": trainer.LoraTuner(rank=16, target_modules=["q_proj"])}),
        ({"tuner": "ia3"}, {"ia3": trainer.Ia3Tuner()}),
    ],
)
def test_words_become_the_tuner(told: dict[str, Any], tuner: dict[str, Any]) -> None:
    assert filled(**told) == trainer.TrainingJobSpec(sft=trainer.SftRecipe(), **tuner)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"tuner": "dora"}, "there is no tuner `dora`; take one of full, lora, .*, qlora"),
        ({"tuner": "vera", "lora_rank": 3}, "the tuner `vera` takes no lora-rank; leave it out"),
        ({"adalora_rank": 4, "vera_rank": 3}, "the tuner `adalora` takes no vera-rank; leave it out"),
        ({"tuner": "full", "quantization": "nf4"}, "full fine-tuning takes no quantization; leave it out"),
        ({"quantization": "fp4"}, "quantization is `fp4`; take one of nf4, int8"),
    ],
)
def test_what_does_not_fit_is_named(told: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        filled(**told)


def test_words_go_over_what_stands_in_a_file() -> None:
    spec = trainer.TrainingJobSpec(oft=trainer.OftTuner(block_size=8, target_modules=["q_proj"]))
    specs.fill_recipe(spec, "sft", {"target_modules": "v_proj"})
    assert spec.oft == trainer.OftTuner(block_size=8, target_modules=["v_proj"])
