"""The planner counts what transformers and peft build, on torch's meta device, and what torch keeps and holds."""

import json
from types import SimpleNamespace

import pytest

from services.trainer.plan.adapters import trained
from services.trainer.plan.architecture import architecture
from services.trainer.plan.losses import COPIES, TILE_COPIES, TILE_TOKENS, TILE_WIDTH, held
from services.trainer.plan.memory import activations
from services.trainer.plan.work import work_of
from services.trainer.refusals import Asked
from tests.recipes.living import kept_numbers, most_copies

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

    from services.trainer.recipes.models.tuning import adapter_config, get_peft_model

    def built(config, kind):
        """The model of a config as transformers reads it, and the config.json it writes."""
        with torch.device("meta"):
            model = getattr(transformers, kind).from_config(config)
        return model, json.loads(config.to_json_string())

    def adapted(model, parameters, task_type="CAUSAL_LM"):
        with torch.device("meta"):
            return get_peft_model(model, adapter_config(parameters, task_type))

    def confined(model, parameters, parts):
        adapter, head = adapter_config(parameters), model.get_output_embeddings()
        linears = {name: each for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)}
        adapter.target_modules = {n for n, each in linears.items() if each is not head and part_of(n) in parts}
        with torch.device("meta"):
            return get_peft_model(model, adapter)

    config = transformers.AutoConfig.for_model
    return SimpleNamespace(built=built, adapted=adapted, confined=confined, config=config)


def part_of(name):
    """As recipes/models/sighted_model.py has it, which needs what other recipes hide."""
    return "projector" if "merger" in name else "tower" if "visual" in name else "language"


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
    tagger, written = libraries.built(config, "AutoModelForTokenClassification")
    assert architecture(written, "tags", 3).parameters == numbers(tagger)


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders(libraries, kind):
    config = libraries.config(kind, **SHAPE, num_labels=3)
    model, written = libraries.built(config, "AutoModel")
    assert architecture(written, "none").parameters == numbers(model)
    classifier, written = libraries.built(config, "AutoModelForSequenceClassification")
    assert architecture(written, "classes", 3).parameters == numbers(classifier)
    tagger, written = libraries.built(config, "AutoModelForTokenClassification")
    assert architecture(written, "tags", 3).parameters == numbers(tagger)


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_models_that_see(libraries, kind):
    """Of the adapters those of the language model, and of the tower and the projector where they are asked for."""
    sizes = {"depth": 2, "num_heads": 2, "spatial_merge_size": 2, "patch_size": 7}
    if kind == "qwen2_vl":
        sizes |= {"embed_dim": 16, "hidden_size": SHAPE["hidden_size"], "mlp_ratio": 3}
    else:
        sizes |= {"hidden_size": 16, "intermediate_size": 40, "out_hidden_size": SHAPE["hidden_size"]}
    config = libraries.config(kind, text_config=SHAPE, vision_config=sizes)
    model, written = libraries.built(config, "AutoModelForImageTextToText")
    said = architecture(written)
    assert said.parameters == numbers(model)
    parts = {"tower": 0, "projector": 0, "language": 0}
    for name, weight in model.named_parameters():
        parts[part_of(name)] += weight.numel()
    assert (said.sight.tower, said.sight.projector) == (parts["tower"], parts["projector"])
    for asked in ({}, {"train_vision_tower": True, "train_projector": True}):
        whole = ["language", *(["tower", "projector"] if asked else [])]
        assert trained(said, Asked.of({"full": {}, "vision": asked}, "vision")) == sum(parts[part] for part in whole)
        adapted = libraries.confined(libraries.built(config, "AutoModelForImageTextToText")[0], TUNERS["lora"], whole)
        assert trained(said, Asked.of({**TUNERS["lora"], "vision": asked}, "vision")) == numbers(adapted, True)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("tuner", [{"full": {}}, {"lora": {"rank": 8}}], ids=["full", "lora"])
def test_what_is_kept_for_the_backward_pass(libraries, kind, tuner):
    """Of a layer, as two models differ in it; rows lie in one sequence, as on a CPU."""
    config = {**SHAPE, "model_type": kind, "head_dim": 24, "tie_word_embeddings": True}
    found = []
    for layers in (1, 2):
        config["num_hidden_layers"] = layers
        spec = {**tuner, "optimization": {"batch_size": 2}, "max_length": 64}
        said = activations(architecture(config), work_of(spec, "sft", "cpu", False))
        found.append((said, kept_numbers(libraries.config(**config), tuner, rows=2, length=64)))
    (said_one, kept_one), (said_two, kept_two) = found
    assert said_two - said_one == pytest.approx(4 * (kept_two - kept_one), rel=0.02)


@pytest.mark.parametrize("loss", [*COPIES, "tiles"])
def test_what_losses_hold(libraries, loss):
    """In copies of all logits; rows here have one token less that counts than they have."""
    model = architecture({**SHAPE, "model_type": "qwen3", "vocab_size": 30_000, "tie_word_embeddings": True})
    if loss == "pairs":
        assert most_copies(loss) == pytest.approx(COPIES[loss], abs=0.35)
        return
    said = held(loss, model, 64, trained=False, bfloat16=False, on_cpu=True)
    unit = 4 * 64 * model.vocabulary
    forward, backward = most_copies(loss)
    assert (said.forward / unit, said.backward / unit) == pytest.approx((forward, backward), rel=0.06)


def test_tiles_are_as_large_as_those_of_trl(libraries):
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    assert (chunked_logprob.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE) == (TILE_TOKENS, TILE_WIDTH)
    assert len(TILE_COPIES) == 2


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


@pytest.mark.parametrize("tuner", ["full", "lora"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_nothing_that_vectors_are_not_made_of(libraries, kind, tuner):
    """Of a model that has no head: an encoder's pooler is frozen, as recipes/learning/contrastive.py does it."""
    from services.trainer.recipes.models.encoders import freeze_pooler

    model, written = libraries.built(libraries.config(kind, **SHAPE), "AutoModel")
    parameters = {"full": {}} if tuner == "full" else TUNERS["lora"]
    if tuner == "lora":
        model = libraries.adapted(model, parameters, "FEATURE_EXTRACTION")
    everything = numbers(model, trainable=True)
    freeze_pooler(model)
    said = trained(architecture(written, "none"), Asked.of(parameters, "embedding"))
    assert said == numbers(model, trainable=True) < everything
