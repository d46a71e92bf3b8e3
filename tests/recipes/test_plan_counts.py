"""The planner counts what transformers and peft build; models without memory, on torch's meta device."""

import json
from types import SimpleNamespace

import pytest

from services.trainer.plan.adapters import trained
from services.trainer.plan.architecture import architecture
from services.trainer.refusals import Asked

SHAPE = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
}
DECODERS = {
    "llama": {"model_type": "llama"},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
    "qwen3 tied, wide heads": {"model_type": "qwen3", "tie_word_embeddings": True, "head_dim": 32},
}
ENCODERS = ("bert", "roberta", "xlm-roberta")
TUNERS = {
    "lora": {"lora": {"rank": 4}},
    "dora": {"lora": {"rank": 4, "variant": "dora"}},
    "named": {"lora": {"rank": 4, "target_modules": ["q_proj", "v_proj"]}},
    "adalora": {"adalora": {"rank": 4}},
    "vera": {"vera": {"rank": 8}},
    "oft": {"oft": {"block_size": 16}},
    "ia3": {"ia3": {}},
}


@pytest.fixture(scope="module")
def libraries(recipes):
    """What builds models; imported after the recipes, as they prepare the process for it, and not at collection."""
    import torch
    import transformers

    from services.trainer.recipes.tuning import adapter_config, get_peft_model

    def built(config, kind):
        """The model of a config as transformers reads it, and the config.json it writes."""
        with torch.device("meta"):
            model = getattr(transformers, kind).from_config(config)
        return model, json.loads(config.to_json_string())

    def adapted(model, parameters, task_type="CAUSAL_LM"):
        with torch.device("meta"):
            return get_peft_model(model, adapter_config(parameters, task_type))

    return SimpleNamespace(built=built, adapted=adapted, config=transformers.AutoConfig.for_model)


def numbers(model, trainable=False):
    return sum(each.numel() for each in model.parameters() if each.requires_grad or not trainable)


@pytest.mark.parametrize("given", DECODERS.values(), ids=DECODERS)
def test_decoders(libraries, given):
    config = libraries.config(**SHAPE, **given)
    model, written = libraries.built(config, "AutoModelForCausalLM")
    assert architecture(written).parameters == numbers(model)
    assert architecture(written, "none").parameters == numbers(libraries.built(config, "AutoModel")[0])
    config.num_labels = 3
    classifier, written = libraries.built(config, "AutoModelForSequenceClassification")
    assert architecture(written, "classes", 3).parameters == numbers(classifier)


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders(libraries, kind):
    config = libraries.config(kind, **SHAPE, num_labels=3)
    model, written = libraries.built(config, "AutoModel")
    assert architecture(written, "none").parameters == numbers(model)
    classifier, written = libraries.built(config, "AutoModelForSequenceClassification")
    assert architecture(written, "classes", 3).parameters == numbers(classifier)


@pytest.mark.parametrize("parameters", TUNERS.values(), ids=TUNERS)
def test_adapters(libraries, parameters):
    model, written = libraries.built(libraries.config("qwen3", **SHAPE, head_dim=16), "AutoModelForCausalLM")
    adapted = libraries.adapted(model, parameters)
    assert trained(architecture(written), Asked.of(parameters, "sft")) == numbers(adapted, trainable=True)


@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_adapters_under_a_head_of_classes(libraries, kind):
    config = libraries.config(kind, **SHAPE, num_labels=3)
    model, written = libraries.built(config, "AutoModelForSequenceClassification")
    parameters = TUNERS["lora"]
    adapted = libraries.adapted(model, parameters, "SEQ_CLS")
    said = trained(architecture(written, "classes", 3), Asked.of(parameters, "sequence_classification"))
    assert said == numbers(adapted, trainable=True)
