"""Adapters on bases whose files hold weights in few bits: they learn as on the floats that these stand for."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.trainer.exporting import QUANTIZATION_PYTHON
from services.trainer.recipes.job.jobdir import JobDir, run_recorded
from tests.recipes.jobs import conversations, digests, feedback, make_job, preferences, progress, result
from tests.recipes.packing_bits import floats_of, foreign_base, packed_base

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}  # dropout, so that the random state matters too
#: By recipe: its rows, and those that are held out.
ROWS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    **{name: (preferences(0, 24), preferences(24, 6)) for name in ("dpo", "orpo", "cpo", "simpo")},
    "kto": (feedback(0, 24), feedback(24, 6)),
    "gkd": (conversations(24), conversations(6)),
}

Make = Callable[..., Path]


@pytest.fixture(scope="module", params=["symmetric", "with zero points"])
def packed(blank: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "base"
    return packed_base(blank, folder, symmetric=request.param == "symmetric")


@pytest.fixture(scope="module")
def unpacked(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return floats_of(packed, tmp_path_factory.mktemp("unpacked") / "base")


@pytest.fixture
def job(tmp_path: Path) -> Make:
    """Makes a job: `job(base, "sft", optimization=…, **parameters)`."""

    def make(base: Path, recipe: str = "sft", optimization: dict[str, Any] | None = None, **parameters: Any) -> Path:
        given = {"learning_rate": 0.01, "batch_size": 8, "max_steps": 8, **(optimization or {})}
        told = {"lora": LORA, "checkpoint_every_steps": 5, "optimization": given, **parameters}
        rows, held_out = ROWS.get(recipe, (conversations(), conversations(6)))
        name = f"{recipe}-{len(list(tmp_path.iterdir()))}"
        return make_job(tmp_path / name, recipe, told, rows, base=base, validation=held_out)

    return make


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in progress(folder, "step")]


@pytest.mark.parametrize("packed", ["with zero points"], indirect=True)
def test_an_adapter_learns_what_it_learns_on_the_floats_that_the_bits_stand_for(
    recipes: SimpleNamespace, job: Make, packed: Path, unpacked: Path
) -> None:
    ours, theirs = job(packed), job(unpacked)
    for each in (ours, theirs):
        assert run_recorded(each, recipes.sft.train) == 0, result(each)["error"]
    assert losses(ours) == losses(theirs) and losses(ours)[-1] < losses(ours)[0] - 0.2
    assert digests(ours / "out") == digests(theirs / "out"), "the adapter, and nothing of the base"
    assert (ours / "out" / "model" / "adapter_model.safetensors").is_file()
    found, of_floats = result(ours), result(theirs)
    assert found["artifact"]["kind"] == "adapter"
    for figure in ("trainable_parameters", "total_parameters", "eval_loss"):
        assert found["metrics"][figure] == of_floats["metrics"][figure]
    assert found["environment"]["base_held"] == "7 matrices in int4 in groups of 16"
    assert "base_held" not in of_floats["environment"]
    assert 0 < found["metrics"]["served_drift"] < 0.05, "it is served in bfloat16"
    assert_parity_is_of_bfloat16(ours)


def assert_parity_is_of_bfloat16(folder: Path) -> None:
    """That the files, loaded by transformers and peft alone, answer so."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.trainer.recipes.learning.parity import greedy

    base = AutoModelForCausalLM.from_pretrained(folder / "in" / "base", dtype=torch.bfloat16)
    base.hf_quantizer.compressor.decompress_model(base)
    model = PeftModel.from_pretrained(base, folder / "out" / "model").to(torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "in" / "base")
    lines = [json.loads(line) for line in (folder / "parity.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 6
    for line in lines:
        tokens, logprobs = greedy(model, tokenizer, line["prompt_token_ids"])
        assert (line["dtype"], line["completion_token_ids"]) == ("bfloat16", tokens)
        assert logprobs == pytest.approx(line["logprobs"], abs=1e-5)


@pytest.mark.prove
def test_what_was_broken_off_ends_bit_for_bit_as_what_was_not(
    recipes: SimpleNamespace, job: Make, packed: Path
) -> None:
    whole = job(packed, optimization={"max_steps": 12})
    assert run_recorded(whole, recipes.sft.train) == 0
    broken = shutil.copytree(whole, whole.with_name("broken"))
    shutil.rmtree(broken / "out")
    shutil.rmtree(broken / "checkpoints" / "checkpoint-10")
    assert run_recorded(broken, recipes.sft.train) == 0
    assert "resuming from checkpoint-5" in [line["message"] for line in progress(broken, "phase")]
    assert digests(broken / "out") == digests(whole / "out")
    assert (broken / "parity.jsonl").read_bytes() == (whole / "parity.jsonl").read_bytes()


def test_a_packed_layer_gives_the_gradients_of_its_floats_and_keeps_no_float(
    recipes: SimpleNamespace, packed: Path, unpacked: Path
) -> None:
    import torch

    from services.trainer.recipes.models.base_model import load_base
    from services.trainer.recipes.models.stored import packed_layers

    (_, ours), (_, theirs) = load_base(packed), load_base(unpacked)
    ids = torch.tensor([[5, 6, 7, 8]])
    for autocast in (False, True):
        gradients = []
        for model in (ours, theirs):
            seen = model.get_input_embeddings()(ids).detach().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                model(inputs_embeds=seen).logits.float().logsumexp(-1).sum().backward()
            gradients.append(seen.grad)
        assert gradients[0].abs().max() > 0 and torch.equal(*gradients), autocast
    layers = list(packed_layers(ours))
    assert len(layers) == 7 and not any("weight" in layer.state_dict() for layer in layers)
    held = sum(tensor.nbytes for layer in layers for tensor in layer.state_dict().values())
    assert held < sum(layer.weight.nbytes for layer in layers) / 3


@pytest.mark.parametrize("packed", ["symmetric"], indirect=True)
def test_parity_of_an_export_is_of_the_model_that_was_read(recipes: SimpleNamespace, job: Make, packed: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.trainer.recipes.learning.parity import Prompt, write_parity

    exported, tokenizer = JobDir(job(packed)), AutoTokenizer.from_pretrained(packed)
    model = AutoModelForCausalLM.from_pretrained(packed, dtype="bfloat16")
    write_parity(exported, model, tokenizer, [Prompt({"prompt": "card"}, tokenizer.encode("card"))])
    assert json.loads(exported.parity.read_text("utf-8"))["dtype"] == "bfloat16" and not exported.notes


@pytest.mark.parametrize("form", ["gptq", "gptq_v2", "gptq sorted", "awq"])
def test_files_of_other_libraries_are_read_as_the_weights_that_they_mean(
    recipes: SimpleNamespace, blank: Path, tmp_path: Path, form: str
) -> None:
    import torch

    from services.trainer.recipes.models.base_model import load_base
    from services.trainer.recipes.models.stored import number_of_weights, packed_layers

    folder, meant = foreign_base(blank, tmp_path / "base", form)
    (_, ours), (_, floats) = load_base(folder), load_base(blank)
    assert len(list(packed_layers(ours))) == len(meant) == 7
    for name, weight in meant.items():
        torch.testing.assert_close(ours.get_submodule(name).weight, weight, rtol=0, atol=1e-7)
        floats.get_submodule(name).weight.data = weight
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(ours(input_ids=ids).logits, floats(input_ids=ids).logits, rtol=0, atol=1e-5)
    assert number_of_weights(ours) == floats.num_parameters()
    assert ours.generation_config.eos_token_id == floats.generation_config.eos_token_id


@pytest.mark.parametrize("form", ["gptq", "awq"])
@pytest.mark.parametrize("lost", ["norm", "layers.0.mlp.up_proj"])
def test_files_of_other_libraries_that_lack_a_weight_are_refused(
    recipes: SimpleNamespace, blank: Path, tmp_path: Path, form: str, lost: str
) -> None:
    from safetensors.torch import load_file, save_file

    from services.trainer.recipes.job.failures import BadInput
    from services.trainer.recipes.models.base_model import load_base

    folder, _ = foreign_base(blank, tmp_path / "base", form)
    file = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if not name.startswith(f"model.{lost}.")}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(BadInput, match=rf"in/base lacks \d of the weights .* such as model\.{lost}"):
        load_base(folder)


@pytest.mark.parametrize("packed", ["symmetric"], indirect=True)
@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"full": {}}, "full trains all weights, and those of the base, int4 in groups of 16, cannot change a little"),
        ({"lora": {**LORA, "quantization": "QUANTIZATION_NF4"}}, "is nf4, but the base's weights are int4 in groups"),
        ({"lora": {**LORA, "variant": "LORA_VARIANT_OLORA"}}, "is olora, which is merged into its base to be served"),
    ],
)  # fmt: skip
def test_what_such_a_base_cannot_be_trained_with_is_refused(
    recipes: SimpleNamespace, job: Make, packed: Path, parameters: dict[str, Any], why: str
) -> None:
    folder = job(packed, **parameters)
    if "full" in parameters:
        spec = json.loads((folder / "spec.json").read_text("utf-8"))
        del spec["parameters"]["lora"]
        (folder / "spec.json").write_text(json.dumps(spec), "utf-8")
    assert run_recorded(folder, recipes.sft.train) == 1
    assert why in result(folder)["error"]["message"] and result(folder)["error"]["reason"] == "BAD_INPUT"


def test_bits_in_a_format_that_nothing_here_reads_are_refused(recipes: SimpleNamespace, job: Make, blank: Path) -> None:
    folder = job(blank)
    file = folder / "in" / "base" / "config.json"
    told = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **told}), "utf-8")
    assert run_recorded(folder, recipes.sft.train) == 1
    error = result(folder)["error"]
    assert error["message"].startswith("in/base holds its weights in gptq files, which no recipe reads; take a version")


@pytest.mark.prove
@pytest.mark.parametrize("recipe", [*ROWS, "rslora", "lora_plus", "packing"])
def test_every_method_learns_on_them_as_on_floats(
    recipes: SimpleNamespace, job: Make, packed: Path, unpacked: Path, recipe: str
) -> None:
    from services.trainer.recipes import distillation, kto, preference

    train = {"kto": kto.train, "gkd": distillation.train}.get(recipe, preference.train)
    told: dict[str, Any] = {"max_new_tokens": 8} if recipe == "gkd" else {}
    if recipe not in ROWS:
        train = recipes.sft.train
        told = {"performance": {"packing": True, "gradient_checkpointing": True}, "max_length": 64}
        if recipe != "packing":
            told = {"lora": {**LORA, "variant": f"LORA_VARIANT_{recipe.upper()}"}}
    folders = [job(base, recipe if recipe in ROWS else "sft", **told) for base in (packed, unpacked)]
    for folder in folders:
        if recipe == "gkd":  # the teacher is packed too
            shutil.copytree(folder / "in" / "base", folder / "in" / "teacher")
        assert run_recorded(folder, train) == 0, result(folder)["error"]
    ours, theirs = folders
    assert losses(ours) == losses(theirs) and len(losses(ours)) == 8
    assert digests(ours / "out") == digests(theirs / "out")
    assert result(ours)["environment"]["base_held"].startswith("7 matrices in int4")


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["gptq", "awq"])
@pytest.mark.skipif(not QUANTIZATION_PYTHON.is_file(), reason="`make quantization` makes the environment")
def test_what_an_export_made_is_trained_to_the_loss_of_its_float_base(
    recipes: SimpleNamespace, job: Make, pretrained: Path, tmp_path: Path, form: str
) -> None:
    base = pretrained / "out" / "model"
    parameters = {"format": f"EXPORT_FORMAT_{form.upper()}", "trained_by": "sft"}
    rows = conversations(24)
    export = make_job(tmp_path / "export", "export", parameters, rows, base=base, validation=rows[:6])
    command = [str(QUANTIZATION_PYTHON), "-m", "services.trainer.recipes.exports.quantize", str(export)]
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=kept, check=True, capture_output=True, cwd=export)
    plan = {"max_steps": 40}
    few, floats = job(export / "out" / "model", optimization=plan), job(base, optimization=plan)
    for each in (few, floats):
        assert run_recorded(each, recipes.sft.train) == 0, result(each)["error"]
    reached, wanted = (result(each)["metrics"] for each in (few, floats))
    assert losses(few)[0] > 1.5 * wanted["final_loss"], "there is something to learn"
    assert reached["final_loss"] < 1.05 * wanted["final_loss"] and reached["eval_loss"] < 1.1 * wanted["eval_loss"]
    assert result(few)["environment"]["base_held"] == "7 matrices in int4 in groups of 32"
    assert_parity_is_of_bfloat16(few)
