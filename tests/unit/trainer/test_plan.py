"""What the planner says of known models: their numbers as transformers counts them, and what the seeds' table says."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from services.trainer import reinforcement
from services.trainer.plan.adapters import trained
from services.trainer.plan.advice import fits
from services.trainer.plan.answer import Place, plan
from services.trainer.plan.architecture import architecture
from services.trainer.plan.devices import ACCELERATORS, MIB, Device, accelerator
from services.trainer.plan.fields import UnplannableError
from services.trainer.plan.losses import CHUNK_LOGITS, LEAST_TOKENS, MOST_TOKENS
from services.trainer.plan.memory import host_memory, memory
from services.trainer.plan.rollouts import SCORED_TOGETHER
from services.trainer.plan.work import CHECKPOINT_ACTIVATIONS_ABOVE, METHODS, UNKNOWN, work_of
from services.trainer.refusals import Asked
from sluice.trainer import v1 as trainer

RECIPES_OF_THE_CONTRACT = trainer.TrainingJobSpec.DESCRIPTOR.oneofs_by_name["recipe"].fields
RECIPES = Path(__file__).resolve().parents[3] / "services" / "trainer" / "recipes"
LLAMA_7B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}
WIDER = {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40}
LLAMA_13B = LLAMA_7B | WIDER
LLAMA_70B = LLAMA_7B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
QWEN3_06B = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
    "max_position_embeddings": 40960,
}
QWEN2_05B = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}
MISTRAL_7B = LLAMA_7B | {"model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8}
BERT = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
QWEN2_VL = {
    "model_type": "qwen2_vl",
    "tie_word_embeddings": True,
    "text_config": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
    },
    "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "mlp_ratio": 4, "num_heads": 16},
}


@pytest.mark.parametrize(
    ("config", "head", "published"),
    [
        (LLAMA_7B, "tokens", 6_738_415_616),
        (LLAMA_13B, "tokens", 13_015_864_320),
        (LLAMA_70B, "tokens", 68_976_648_192),
        (MISTRAL_7B, "tokens", 7_241_732_096),
        (QWEN3_06B, "tokens", 596_049_920),
        (QWEN2_05B, "tokens", 494_032_768),
        (BERT, "none", 109_482_240),
    ],
    ids=["llama-2-7b", "llama-2-13b", "llama-2-70b", "mistral-7b", "qwen3-0.6b", "qwen2-0.5b", "bert-base"],
)
def test_the_numbers_of_a_model_are_those_its_makers_publish(config, head, published):
    model = architecture(config, head)
    assert model.parameters == published
    assert model.parameters == model.embedding + model.attention + model.mlp + model.norms + model.head


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "mamba"}, "model_type is `mamba`"),
        ({}, "model_type is `None`"),
        (LLAMA_7B | {"quantization_config": {"bits": 4}}, "quantization_config is given"),
        ({key: value for key, value in LLAMA_7B.items() if key != "hidden_size"}, "hidden_size is not in config.json"),
        (LLAMA_7B | {"vocab_size": "many"}, "vocab_size is not in config.json"),
        (LLAMA_7B | {"num_hidden_layers": True}, "num_hidden_layers is not in config.json"),
        (BERT, "an encoder"),
    ],
)
def test_a_model_that_is_not_known_is_refused_by_what_misses(config, words):
    with pytest.raises(UnplannableError, match=words):
        architecture(config)


def lora(rank=16, **settings):
    return {"lora": {"rank": rank, **settings}}


def work(recipe="sft", device="cpu", rows=1, length=512, checkpointing=None, **spec):
    optimization = {"batch_size": rows, **spec.pop("optimization", {})}
    return work_of({"optimization": optimization, "max_length": length, **spec}, recipe, device, checkpointing)


def wide(vocabulary, width, inner, layers, heads, kv_heads):
    shape = {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return (
        QWEN3_06B | shape | {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": width // heads}
    )


USUAL, WORDY = wide(32_000, 768, 3072, 12, 12, 12), wide(151_936, 512, 1536, 8, 8, 4)
APART = wide(16_384, 1024, 2816, 12, 16, 4) | {"model_type": "llama", "tie_word_embeddings": False}


@pytest.mark.parametrize(
    ("config", "spec", "rows", "length", "checkpointing", "measured_mb"),
    [
        (USUAL, lora(), 4, 256, True, 1732),
        (WORDY, {"full": {}}, 2, 128, True, 2064),
        (APART, {"full": {}}, 2, 64, False, 2877),
        (USUAL, lora(64), 2, 128, False, 1347),
    ],
)
def test_on_a_cpu_it_says_what_was_measured_within_a_tenth(config, spec, rows, length, checkpointing, measured_mb):
    """Of runs of the recipe itself (benchmarks/planner.py)."""
    said = memory(architecture(config), work(rows=rows, length=length, checkpointing=checkpointing, **spec)).peak
    assert abs(said / 1e6 / measured_mb - 1) < 0.1


def test_of_methods_it_was_not_fitted_to_it_says_what_was_measured():
    tagging = work("token_classification", rows=2, length=256, checkpointing=False, full={})
    assert memory(architecture(BERT, "tags", 5), tagging).peak / 1e6 == pytest.approx(2315, rel=0.1)
    drawing = work("grpo", rows=4, length=160, checkpointing=True, grpo={"max_new_tokens": 32}, **lora())
    assert memory(architecture(USUAL), drawing).peak / 1e6 == pytest.approx(1797, rel=0.1)
    student = work("gkd", rows=2, length=224, checkpointing=False, gkd={"max_new_tokens": 32}, **lora())
    taught = replace(student, beside={"teacher": architecture(USUAL)})
    assert memory(architecture(USUAL), taught).peak / 1e6 == pytest.approx(3121, rel=0.1)


@pytest.mark.parametrize(
    ("config", "spec", "device", "count", "sharding", "at_least_gb", "at_most_gb"),
    [
        (LLAMA_7B, lora(quantization="nf4"), "a10-24gb", 1, "single", 4, 9),
        (LLAMA_13B, {"full": {}}, "a100-40gb", 8, "zero3", 24, 40),
        (LLAMA_70B, {"full": {}}, "h100-80gb", 16, "fsdp", 60, 80),
    ],
    ids=["7B QLoRA: at most 9 GB", "13B ZeRO-3: 40 GB and more", "70B: several nodes of 80 GB"],
)
def test_the_table_of_the_seed_documents(config, spec, device, count, sharding, at_least_gb, at_most_gb):
    place = Place(accelerator(device), count, sharding)
    said = plan(config, {"optimization": {"batch_size": 1}, **spec}, "sft", place)
    assert at_least_gb <= said.memory.peak_bytes / 1e9 <= at_most_gb
    assert said.fits and said.trainable == (count <= 8)  # one host
    assert ("does not train it so" in said.advice) == (count > 8)


def test_what_the_seed_documents_say_will_not_do_does_not():
    full = work(device="cuda", full={})
    thirteen = {fit.device.name: fit for fit in fits(architecture(LLAMA_13B), full)}
    assert thirteen["a100-40gb"].devices == 8 and thirteen["a10-24gb"].devices == 16
    assert all(fit.devices > 1 for fit in thirteen.values())
    seventy = {fit.device.name: fit for fit in fits(architecture(LLAMA_70B), full)}
    assert seventy["a100-80gb"].nodes > 1 and seventy["h100-80gb"].nodes > 1


def test_shares_hold_less_stage_by_stage_and_whole_copies_do_not():
    model, full = architecture(LLAMA_7B), work(device="cuda", full={})
    stages = [memory(model, full, stage, 8).peak for stage in ("zero1", "zero2", "zero3")]
    assert stages == sorted(stages, reverse=True) and len(set(stages)) == 3
    assert memory(model, full, "fsdp", 8) == memory(model, full, "zero3", 8)
    alone = memory(model, full)
    assert memory(model, full, "ddp", 8).peak - alone.peak == alone.gradients  # summed up in buckets
    assert memory(model, full, "zero3", 16).peak < stages[-1]


def test_each_way_to_save_saves():
    model = architecture(QWEN3_06B)
    full = memory(model, work(device="cuda", full={})).peak
    thrifty = memory(model, work(device="cuda", full={}, optimization={"optimizer": "adamw_8bit"})).peak
    adapter = memory(model, work(device="cuda", **lora())).peak
    quantized = memory(model, work(device="cuda", **lora(quantization="nf4"))).peak
    assert full > thrifty > adapter > quantized
    kept = memory(model, work(device="cuda", checkpointing=False, **lora())).peak
    assert kept > adapter  # which the recipe computes twice by itself
    assert memory(model, work(device="cuda", length=1024, **lora())).peak > adapter


def test_a_chunked_loss_holds_a_chunk_and_other_losses_all_logits():
    model = architecture(QWEN3_06B)
    usual, asked = (
        memory(model, work(rows=8, performance=told, **lora())) for told in ({}, {"loss_chunk_tokens": 1024})
    )
    chunk = 4 * 2 * model.vocabulary  # of a token: its logits, and what their sum makes of them
    assert asked.logits - usual.logits == (1024 - LEAST_TOKENS) * chunk
    longer = memory(model, work(rows=16, **lora()))
    assert longer.logits - usual.logits == 8 * 512 * 2 * 4 * model.hidden  # inputs of the head and their gradients
    whole = memory(model, work(rows=8, adalora={"rank": 8}, optimization={"max_steps": 100}))  # by the model itself
    assert whole.logits == 3 * 4 * 8 * 512 * model.vocabulary


def test_joined_rows_keep_one_tensor_more_in_each_layer():
    model = architecture(QWEN3_06B)
    joined, padded = (
        memory(model, work(rows=2, performance={"padding_free": told}, **lora())) for told in (True, False)
    )
    assert joined == memory(model, work(rows=2, **lora()))  # what the recipe does by itself on a CPU
    assert joined.activations - padded.activations == 4 * 2 * 512 * model.query


def test_methods_that_draw_answers_hold_a_cache_and_a_reference():
    model, spec = architecture(QWEN3_06B), {"max_new_tokens": 128}
    full, adapter = (memory(model, work("grpo", grpo=spec, **tuner)) for tuner in ({"full": {}}, lora()))
    assert (full.beside, adapter.beside) == (4 * model.parameters, 0)  # an adapter is switched off instead
    assert adapter.drawn > 4 * 2 * 512 * model.layers * model.key_value  # keys and values of one row
    assert memory(model, work("grpo", rows=8, grpo=spec, **lora())).drawn == 8 * adapter.drawn
    assert memory(model, work("sft", **lora())).drawn == 0
    scored = replace(work("grpo", grpo=spec, **lora()), beside={"reward": architecture(QWEN2_05B, "classes", 1)})
    assert memory(model, scored).beside == 4 * scored.beside["reward"].parameters


def test_a_teacher_stands_beside_its_student():
    spec = {"optimization": {"batch_size": 1}, "gkd": {}, **lora()}
    alone, taught = (plan(QWEN3_06B, spec, "gkd", PLACE, beside=beside) for beside in ({}, {"teacher": QWEN3_06B}))
    assert taught.memory.peak_bytes - alone.memory.peak_bytes == taught.memory.beside_bytes == 4 * 596_049_920
    assert taught.step_flops > alone.step_flops
    with pytest.raises(UnplannableError, match=r"teacher\.model_type is `mamba`"):
        plan(QWEN3_06B, spec, "gkd", PLACE, beside={"teacher": {"model_type": "mamba"}})


def test_images_take_what_a_frozen_or_a_trained_tower_does():
    model = architecture(QWEN2_VL)
    assert model.parameters == 2_208_985_600
    frozen, trained_too = (
        memory(model, work("vision", device="cuda", checkpointing=False, vision=told, **lora()))
        for told in ({}, {"train_vision_tower": True})
    )
    assert trained_too.activations > 2 * frozen.activations
    said = plan(QWEN2_VL, {"vision": {}, **lora()}, "vision", PLACE)
    assert any("one of an image" in note for note in said.notes)


def test_devices_that_share_sequences_hold_their_part_of_each():
    model, shared = architecture(QWEN3_06B), {"sequence_parallel_size": 4, "devices": 4}
    whole, part = (memory(model, work("sft", device="cuda", distribution=told, **lora())) for told in ({}, shared))
    assert part.activations * 4 == whole.activations


def test_what_is_offloaded_lies_on_the_host():
    model = architecture(LLAMA_7B)
    told = {"offload_optimizer": True, "devices": 8, "sharding": "zero2"}
    here, there = (work(device="cuda", full={}, distribution=each) for each in ({}, told))
    device, offloaded = (memory(model, each, "zero2", 8) for each in (here, there))
    assert offloaded.optimizer == 0 and offloaded.on_host == device.optimizer
    assert host_memory(model, there, offloaded) >= offloaded.on_host


@pytest.mark.parametrize(
    ("rows", "length", "spec", "gb", "words"),
    [
        (1, 512, lora(), 80, "it fits on a"),
        (32, 512, lora(), 16, "it does with batch_size"),
        (1, 4096, lora(), 8.5, "it does with max_length"),
        (1, 512, {"full": {}}, 12, "it does with optimizer adamw_8bit"),
        (1, 512, {"full": {}}, 7, "it does with tuner lora"),
        (1, 64, {"full": {}}, 1, "no single setting changes that; it fits on one"),
    ],
)
def test_one_setting_is_named_that_makes_it_fit(rows, length, spec, gb, words):
    config = LLAMA_7B if gb in (8.5, 16) else QWEN3_06B
    if config is LLAMA_7B:
        spec = lora(quantization="nf4")
    device = Device("a", "cuda", int(gb * 1e9))
    said = plan(config, {"optimization": {"batch_size": rows}, "max_length": length, **spec}, "sft", Place(device))
    assert words in said.advice


def test_what_is_advised_fits_when_it_is_done():
    place = Place(Device("a", "cuda", int(16e9)))
    spec = {"optimization": {"batch_size": 32}, "max_length": 512, **lora(quantization="nf4")}
    said = plan(LLAMA_7B, spec, "sft", place)
    assert not said.fits
    rows = int(said.advice.split("batch_size ")[1].split()[0])
    assert plan(LLAMA_7B, spec | {"optimization": {"batch_size": rows}}, "sft", place).fits
    assert not plan(LLAMA_7B, spec | {"optimization": {"batch_size": 2 * rows}}, "sft", place).fits


def test_what_is_advised_is_no_batch_that_a_group_does_not_divide():
    spec = {"optimization": {"batch_size": 32}, "grpo": {"rewards": [{"valid_json": {}}], "group_size": 8}, **lora()}
    whole = plan(QWEN3_06B, spec, "grpo", PLACE).memory
    advised = [
        plan(QWEN3_06B, spec, "grpo", Place(Device("a", "cuda", int(whole.peak_bytes * part)))).advice
        for part in (0.9, 0.8, 0.7, 0.6)
    ]
    rows = [int(advice.split("batch_size ")[1].split()[0]) for advice in advised if "batch_size" in advice]
    assert rows and not any(each % 8 for each in rows)


def test_time_rests_on_what_is_told_and_without_is_not_made_up():
    spec = {"optimization": {"batch_size": 4, "epochs": 2}, "max_length": 100, **lora()}
    cpu = Place(Device("cpu", "cpu", 10**12))
    none = plan(QWEN3_06B, spec, "sft", cpu, rows=10)
    assert not none.HasField("step_time") and "no speed" in none.time_basis and none.steps == 5
    told = plan(QWEN3_06B, spec, "sft", replace(cpu, tokens_per_s=200), rows=10)
    assert told.step_time.ToTimedelta().total_seconds() == 2
    assert told.total_time.ToTimedelta().total_seconds() == 10
    flops = plan(QWEN3_06B, spec, "sft", replace(cpu, tflops=0.1))
    assert flops.step_time.ToTimedelta().total_seconds() == pytest.approx(flops.step_flops / 1e11, rel=1e-3)
    sheet = plan(QWEN3_06B, spec, "sft", Place(accelerator("a100-80gb")))
    assert sheet.time_basis.startswith("at the least: 312 TFLOP/s")


def test_flops_of_full_training_are_six_for_each_number_and_token():
    said = plan(
        LLAMA_7B, {"full": {}, "max_length": 16, "optimization": {"batch_size": 1}}, "sft", PLACE, checkpointing=False
    )
    assert said.step_flops == pytest.approx(6 * 6.6e9 * 16, rel=0.02)


PLACE = Place(Device("a", "cuda", 10**12))


@pytest.mark.parametrize(
    ("spec", "recipe", "place", "words"),
    [
        ({}, "export", PLACE, "recipe is `export`, .*: it trains nothing"),
        ({}, "telepathy", PLACE, "recipe is `telepathy`, .* knows pretrain, sft"),
        ({"precision": "PRECISION_BFLOAT16"}, "sft", Place(Device("cpu", "cpu", 1)), "precision is bfloat16"),
        (lora(target_modules=["c_attn"]), "sft", PLACE, "target_modules name `c_attn`"),
        ({}, "sft", replace(PLACE, devices=2), "sharding and devices go together"),
        ({}, "sft", replace(PLACE, sharding="zero3"), "sharding and devices go together"),
    ],
)
def test_what_is_not_known_is_refused_by_name(spec, recipe, place, words):
    with pytest.raises(UnplannableError, match=words):
        plan(LLAMA_7B, spec, recipe, place)
    with pytest.raises(UnplannableError, match="device is `b9000`"):
        accelerator("b9000")


def assigned(*names):
    """What stands for constants in the source of a recipe: importing it takes torch."""
    body = ast.parse(RECIPES.joinpath(*names).with_suffix(".py").read_text("utf-8")).body
    return {ast.unparse(node.targets[0]): node.value for node in body if isinstance(node, ast.Assign)}


@pytest.mark.parametrize("recipe", METHODS)
def test_the_defaults_are_those_of_the_recipes(recipe):
    files = {**dict.fromkeys(("dpo", "orpo", "cpo", "simpo"), "preference"), "rm": "reward", "gkd": "distillation"}
    file = ("reinforcement", "lesson") if recipe in reinforcement.RECIPES else (files.get(recipe, recipe),)
    method, told = METHODS[recipe], assigned(*file)
    descents = [value for name, value in told.items() if name.endswith("DEFAULTS")]
    assert descents
    for call in descents:
        given = {each.arg: each.value for each in call.keywords if each.arg in ("batch_size", "epochs")}
        said = {
            name: reinforcement.BATCH_SIZE if ast.unparse(value) == "BATCH_SIZE" else ast.literal_eval(value)
            for name, value in given.items()
        }
        assert (said.get("batch_size", 32), said.get("epochs", 3.0)) == (method.batch_size, method.epochs)
    longest = told.get("MAX_LENGTH")
    assert longest is None or ast.literal_eval(longest) == method.max_length
    drawn = told.get("MAX_NEW_TOKENS", assigned("reinforcement", "rollouts")["MAX_NEW_TOKENS"])
    assert method.new_tokens in (0, ast.literal_eval(drawn))


def test_the_limits_are_those_of_the_recipes():
    source = (RECIPES / "learning" / "optimization.py").read_text("utf-8")
    assert f"CHECKPOINT_ACTIVATIONS_ABOVE = {CHECKPOINT_ACTIVATIONS_ABOVE:_}" in source
    assert f"NEGATIVES = {METHODS['reranker'].negatives}" in (RECIPES / "data" / "retrieval.py").read_text("utf-8")
    source = (RECIPES / "learning" / "token_loss.py").read_text("utf-8")
    assert "CHUNK_LOGITS, MOST_TOKENS, LEAST_TOKENS = 1 << 24, 4096, 128\n" in source
    assert (CHUNK_LOGITS, MOST_TOKENS, LEAST_TOKENS) == (1 << 24, 4096, 128)
    assert ast.literal_eval(assigned("models", "encoders")["BATCH"]) == SCORED_TOGETHER
    assert set(METHODS) | set(UNKNOWN) >= {field.name for field in RECIPES_OF_THE_CONTRACT}


def test_devices_are_in_order_of_their_memory():
    sizes = [device.bytes for device in ACCELERATORS.values()]
    assert sizes == sorted(sizes) and min(sizes) > 20_000 * MIB


def test_an_adapter_of_named_modules_is_smaller_than_one_of_all():
    model = architecture(LLAMA_7B)
    some = Asked.of({"lora": {"rank": 16, "target_modules": ["q_proj", "v_proj"]}}, "sft")
    assert trained(model, some) == 8_388_608  # as peft's own example of Llama 7B, rank 16
    assert trained(model, Asked.of(lora(), "sft")) == 39_976_960


def test_an_answer_has_every_part():
    said = plan(BERT, {"full": {}, "optimization": {"batch_size": 2}}, "embedding", PLACE, rows=9, staged_bytes=7)
    assert said.disk.total_bytes == 7 + 3 * said.disk.checkpoint_bytes + said.disk.output_bytes
    assert said.memory.logits_bytes == 0 and said.parameters.head == 0
    assert said.sharding == trainer.SHARDING_UNSPECIFIED and said.pools and said.notes
