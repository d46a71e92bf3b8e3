"""Every tuner and optimizer: it learns as the baseline does, and what is saved is what was trained.

The loss to reach is that of plain LoRA for a tuner, that of AdamW on all weights for an optimizer, each method at its
own default learning rate.
"""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.trainer.recipes.job.jobdir import JobDir, run_recorded
from tests.recipes.jobs import SHAPE, conversations, digests, make_job, progress, result, texts
from tests.recipes.test_outputs import assert_parity_equals_reload

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

#: Twice as wide as that of the other tests: some matrices have 4096 numbers and more, from where on 8 bits are used.
WIDE = {**SHAPE, "hidden_size": 64}
STEPS = 40
SLACK = 1.05


@dataclass(frozen=True)
class Method:
    """``kind`` is what is left; ``steps`` more than the baseline's where what is trained is very little."""

    parameters: dict[str, Any]
    kind: str = "full"
    steps: int = STEPS


def lora(**settings: Any) -> dict[str, Any]:
    return {"lora": {"rank": 8, **settings}}


TUNERS = {
    "lora": Method(lora(), "adapter"),
    "rslora": Method(lora(variant="LORA_VARIANT_RSLORA"), "adapter"),
    "lora_plus": Method(lora(variant="LORA_VARIANT_LORA_PLUS"), "adapter"),
    "dora": Method(lora(variant="LORA_VARIANT_DORA")),
    "pissa": Method(lora(variant="LORA_VARIANT_PISSA")),
    "olora": Method(lora(variant="LORA_VARIANT_OLORA")),
    "nf4": Method(lora(quantization="QUANTIZATION_NF4"), "adapter"),
    "int8": Method(lora(quantization="QUANTIZATION_INT8"), "adapter"),
    "nf4 dora": Method(lora(quantization="QUANTIZATION_NF4", variant="LORA_VARIANT_DORA")),
    "adalora": Method({"adalora": {}}),
    "vera": Method({"vera": {}}, steps=60),
    "oft": Method({"oft": {}}),
    "ia3": Method({"ia3": {}}, steps=120),
}


def optimizer(name: str) -> Method:
    return Method({"full": {}, "optimization": {"optimizer": f"OPTIMIZER_{name.upper()}"}})


OPTIMIZERS = {
    "adamw": "torch.optim.adamw.AdamW",
    "adamw_8bit": "bitsandbytes.optim.adamw.AdamW",
    "adafactor": "transformers.optimization.Adafactor",
    "galore": "galore_torch.adamw.AdamW",
    "apollo": "apollo_torch.apollo.AdamW",
    "lomo": "lomo_optim.lomo.Lomo",
}
Train = Callable[[Method], Path]


@pytest.fixture(scope="module")
def wide(recipes: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a base that has learned a little."""
    optimization = {"learning_rate": 0.01, "batch_size": 8, "max_steps": 60}
    job = make_job(
        tmp_path_factory.mktemp("wide") / "job",
        "pretrain",
        {"shape": WIDE, "max_length": 32, "optimization": optimization},
        texts(),
    )
    assert run_recorded(job, recipes.pretrain.train) == 0
    return job / "out" / "model"


@pytest.fixture(scope="module")
def train(recipes: SimpleNamespace, wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains by a method and gives the job directory; a job that succeeded."""

    def made(method: Method) -> Path:
        optimization = {"batch_size": 8, "max_steps": method.steps, **method.parameters.get("optimization", {})}
        parameters = {"checkpoint_every_steps": 15, **method.parameters, "optimization": optimization}
        folder = tmp_path_factory.mktemp("tuned") / "job"
        job = make_job(folder, "sft", parameters, conversations(), base=wide, validation=conversations())
        assert run_recorded(job, recipes.sft.train) == 0, result(job)["error"]
        return job

    return made


@pytest.fixture(scope="module")
def by_lora(train: Train) -> Path:
    return train(TUNERS["lora"])


@pytest.fixture(scope="module")
def by_adamw(train: Train) -> Path:
    return train(optimizer("adamw"))


def final_loss(job: Path) -> float:
    return result(job)["metrics"]["final_loss"]


@pytest.mark.parametrize("name", [name for name in TUNERS if name != "lora"])
def test_a_tuner_reaches_the_loss_of_lora_and_its_parity_is_of_what_it_leaves(
    name: str, train: Train, by_lora: Path
) -> None:
    method = TUNERS[name]
    job = train(method)
    assert progress(job, "step")[0]["loss"] > 2 * final_loss(by_lora), "there is something to learn"
    if name == "adalora":  # what is held out has the loss without its regularizer
        assert result(job)["metrics"]["eval_loss"] < SLACK * result(by_lora)["metrics"]["eval_loss"]
    else:
        assert final_loss(job) < SLACK * final_loss(by_lora)
    found = result(job)
    assert found["artifact"]["kind"] == method.kind
    assert 0 < found["metrics"]["trainable_parameters"] < found["metrics"]["total_parameters"] / 4
    weights = int(found["metrics"]["trainable_parameters"])
    assert found["environment"]["optimizer_states"] == f"float32 {2 * weights}"
    assert ("served_drift" in found["metrics"]) == ("quantization" in method.parameters.get("lora", {}))
    assert_parity_equals_reload(job, job / "in" / "base" if method.kind == "adapter" else None)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adamw"])
def test_an_optimizer_reaches_the_loss_of_adamw(name: str, train: Train, by_adamw: Path) -> None:
    job = train(optimizer(name))
    assert final_loss(job) < SLACK * final_loss(by_adamw)
    about, adamw = (result(each)["environment"] for each in (job, by_adamw))
    weights = int(result(job)["metrics"]["trainable_parameters"])
    assert about["optimizer"] == OPTIMIZERS[name]
    assert (adamw["optimizer"], adamw["optimizer_states"]) == (OPTIMIZERS["adamw"], f"float32 {2 * weights}")
    states = {
        kind: int(number)
        for kind, number in (one.split() for one in about["optimizer_states"].split(", ") if " " in one)
    }
    if name == "adamw_8bit":
        assert states["uint8"] == 2 * _numbers_in_8_bits(job / "in" / "base")
    elif name == "lomo":
        assert about["optimizer_states"] == "none"
    else:
        assert states.keys() == {"float32"} and states["float32"] < 1.1 * weights, "about half of AdamW's, or less"


def test_b_learns_faster_than_a_in_lora_plus(train: Train) -> None:
    import torch

    job = train(Method(lora(variant="lora_plus", learning_rate_ratio=4), steps=16))
    groups = torch.load(job / "checkpoints" / "checkpoint-15" / "optimizer.pt")["param_groups"]
    rates = [group["initial_lr"] for group in groups if group["params"]]
    assert len(rates) == 2 and max(rates) == pytest.approx(4 * min(rates))


def test_adalora_gives_its_rank_to_some_modules_and_takes_it_from_others(train: Train) -> None:
    from safetensors.torch import load_file

    job = train(Method({"adalora": {"rank": 4, "initial_rank": 6}}, steps=20))
    found = load_file(job / "checkpoints" / "checkpoint-15" / "rank_allocation.safetensors")
    kept = [int(mask.sum()) for name, mask in found.items() if name.startswith("kept/")]
    assert len(kept) == 7 and sum(kept) == 4 * 7, "on average the rank that was asked for"
    assert min(kept) < 4 < max(kept)


def test_adalora_is_held_to_orthogonal_matrices(recipes: SimpleNamespace, wide: Path) -> None:
    import torch
    from datasets import Dataset
    from peft import AdaLoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig

    from services.trainer.recipes.learning.token_loss import TokenTrainer

    def loss(weight: float, batches: int, training: bool) -> float:
        torch.manual_seed(1)
        trainer = TokenTrainer(
            model=AutoModelForCausalLM.from_pretrained(wide, dtype="float32"),
            args=SFTConfig(report_to="none", use_cpu=True, bf16=False, gradient_accumulation_steps=batches),
            train_dataset=Dataset.from_dict({"input_ids": [[5, 6, 7]], "labels": [[5, 6, 7]]}),
            processing_class=AutoTokenizer.from_pretrained(wide),
            peft_config=AdaLoraConfig(
                target_r=2, init_r=3, total_step=10, orth_reg_weight=weight, task_type="CAUSAL_LM"
            ),
        )
        ids = torch.tensor([[5, 6, 7]])
        trainer.model.train(training)
        return trainer.compute_loss(trainer.model, {"input_ids": ids, "labels": ids}, num_items_in_batch=2).item()

    plain = loss(0, 1, training=True)
    penalty = loss(0.5, 1, training=True) - plain
    assert penalty > 0.1 and loss(1, 1, training=True) - plain == pytest.approx(2 * penalty, rel=1e-3)
    assert loss(0.5, 4, training=True) - plain == pytest.approx(penalty / 4, rel=1e-3), "of an update, not of a batch"
    assert loss(0.5, 1, training=False) == pytest.approx(plain, rel=1e-5), "held-out loss is that of the tokens"


def _numbers_in_8_bits(base: Path) -> int:
    """Those of all tensors but embeddings that have 4096 of them and more."""
    from safetensors.torch import load_file

    sizes = {name: tensor.numel() for name, tensor in load_file(base / "model.safetensors").items()}
    return sum(size for name, size in sizes.items() if size >= 4096 and "embed" not in name)


@pytest.mark.parametrize("name", TUNERS)
def test_the_saved_files_answer_as_what_was_trained(
    name: str, recipes: SimpleNamespace, wide: Path, tmp_path: Path
) -> None:
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    from services.trainer.recipes.models.base_model import load_base
    from services.trainer.recipes.models.quantization import quantization_config
    from services.trainer.recipes.models.tuning import adapter_config, as_saved, check_targets, save

    set_seed(1)
    parameters, job = TUNERS[name].parameters, JobDir(make_job(tmp_path / "job", "sft", {}, [], base=wide))
    tokenizer, base = load_base(job.base, quantization_config(parameters))
    adapter = adapter_config(parameters)
    check_targets(base, adapter)
    model = get_peft_model(base, adapter)
    ids = torch.tensor([tokenizer.encode("where is my card? The bank keeps card_lost apart.")])
    before = _stirred(model, ids)
    trained = _logits(model, ids)
    assert (trained - before).abs().max() > 0.1, "it has learned something"

    assert save(job, model, tokenizer) == TUNERS[name].kind
    if TUNERS[name].kind == "full":
        saved = AutoModelForCausalLM.from_pretrained(job.out_model, dtype="float32")
        assert "quantization_config" not in json.loads((job.out_model / "config.json").read_text())
    else:
        saved = _as_an_engine_adds_it(AutoModelForCausalLM.from_pretrained(job.base, dtype="float32"), job.out_model)
    apart = (_logits(saved, ids) - trained).abs().max()
    if "quantization" in parameters.get("lora", {}):
        assert 1e-4 < apart < 1, "the base that it is served on is not the one that it was trained on"
        assert (_logits(saved, ids) - _logits(as_saved(job, model), ids)).abs().max() < 1e-4
    else:
        assert apart < 1e-4
        assert (_logits(model, ids) - trained).abs().max() < 1e-4, "parity is made with it after it was saved"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lora", {"use_rslora": False, "use_dora": False, "init_lora_weights": True, "r": 8, "lora_alpha": 16}),
        ("rslora", {"use_rslora": True}),
        ("dora", {"use_dora": True}),
        ("nf4 dora", {"use_dora": True}),
        ("pissa", {"init_lora_weights": "pissa"}),
        ("olora", {"init_lora_weights": "olora"}),
        ("adalora", {"target_r": 8, "init_r": 12}),
        ("vera", {"r": 64}),
        ("oft", {"oft_block_size": 32}),
        ("ia3", {"target_modules": {"k_proj", "v_proj", "down_proj"}, "feedforward_modules": {"down_proj"}}),
    ],
)
def test_peft_is_told_what_was_asked_for(recipes: SimpleNamespace, name: str, said: dict[str, Any]) -> None:
    from services.trainer.recipes.models.tuning import adapter_config

    config = adapter_config(TUNERS[name].parameters)
    assert {field: getattr(config, field) for field in said} == said


def _stirred(model: Any, ids: Any) -> Any:
    """Logits before a few steps of training on ``ids``."""
    import torch

    before = _logits(model, ids)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    model.train()
    for _ in range(5):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return before


def _logits(model: Any, ids: Any) -> Any:
    import torch

    model.eval()
    with torch.no_grad():
        return model(input_ids=ids).logits.clone()


def _as_an_engine_adds_it(base: Any, folder: Path) -> Any:
    """W + scale * B A, the scale by the rule of vLLM 0.32 (vllm/lora/peft_helper.py)."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    for name, a in tensors.items():
        if ".lora_A." in name:
            module = base.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            module.weight.data += _scale(config) * tensors[name.replace("lora_A", "lora_B")].float() @ a.float()
    return base


def _scale(config: dict[str, Any]) -> float:
    rank = config["r"]
    return config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)


@pytest.mark.prove
@pytest.mark.vllm
def test_vllm_scales_adapters_by_that_rule() -> None:
    """In a process of its own: in this one the recipes have hidden vLLM."""
    configs = [{"r": 8, "lora_alpha": 16.0, "use_rslora": yes, "target_modules": ["q_proj"]} for yes in (False, True)]
    program = "import services.gateway.engines.vllm_server\n"  # repairs what vLLM cannot import on a CPU
    program += "import json, sys; from vllm.lora.peft_helper import PEFTHelper\n"
    program += "found = [PEFTHelper.from_dict(config) for config in json.loads(sys.argv[1])]\n"
    program += "print(json.dumps([each.vllm_lora_scaling_factor for each in found]))"
    done = subprocess.run([sys.executable, "-c", program, json.dumps(configs)], capture_output=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx([_scale(config) for config in configs])


@pytest.mark.parametrize(
    "name",
    [
        "adalora",
        "galore",
        *(
            pytest.param(name, marks=pytest.mark.prove)
            for name in ("nf4", "pissa", "olora", "lora_plus", "vera", "adamw_8bit", "adafactor", "apollo", "lomo")
        ),
    ],
)
def test_a_job_goes_on_from_a_checkpoint_as_if_nothing_had_been(
    name: str, recipes: SimpleNamespace, train: Train
) -> None:
    method = TUNERS.get(name) or optimizer(name)
    if name == "adalora":
        method = Method({"adalora": {"rank": 2, "initial_rank": 12}})  # much to choose from
    job = train(Method({**method.parameters, "checkpoint_every_steps": 6}, steps=16))
    whole = digests(job / "out")
    shutil.rmtree(job / "out")
    shutil.rmtree(job / "checkpoints" / "checkpoint-12")
    assert run_recorded(job, recipes.sft.train) == 0
    assert len(progress(job, "step")) == 16 + 10, "it went on from step 6"
    assert digests(job / "out") == whole


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (
            {"optimization": {"optimizer": "paged_adamw_8bit"}},
            "optimization.optimizer is paged_adamw_8bit, which pages",
        ),
        ({"optimization": {"optimizer": "adam"}}, "optimization.optimizer is 'adam'; it must be one of adamw, "),
        (
            {"oft": {"block_size": 24}},
            "oft.block_size 24 does not divide the 64 inputs of model.layers.0.self_attn.q_p",
        ),
        ({"adalora": {}, "optimization": {"max_steps": 0, "epochs": 1}}, "adalora needs 10 updates to give out its "),
        ({"lora": {"variant": "mora"}}, "lora.variant is 'mora'; it must be one of rslora, "),
        ({"lora": {"quantization": "fp4"}}, "lora.quantization is 'fp4'; it must be nf4 or int8."),
        ({"vera": {"target_modules": ["w_pack"]}}, "The base model has no module 'w_pack'"),
    ],
)
def test_a_recipe_refuses_what_it_would_have_to_replace(
    recipes: SimpleNamespace, wide: Path, tmp_path: Path, parameters: dict[str, Any], sentence: str
) -> None:
    parameters = {**parameters, "optimization": {"batch_size": 8, "max_steps": 2, **parameters.get("optimization", {})}}
    job = make_job(tmp_path / "job", "sft", parameters, conversations(), base=wide)
    assert run_recorded(job, recipes.sft.train) == 1
    assert result(job)["error"]["reason"] == "BAD_INPUT"
    assert result(job)["error"]["message"].startswith(sentence)
