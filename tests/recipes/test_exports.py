"""Exports: each form holds what its source holds, says how far it is from it, and refuses what it cannot be made of."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.exporting import QUANTIZATION_PYTHON
from services.trainer.recipes.job.jobdir import JobDir, run_recorded
from tests import llama_cpp
from tests.node_client import InstallFailed, NotHere, fill
from tests.recipes.bert import FITS, classified, fitting
from tests.recipes.jobs import SHAPE, conversations, make_job, progress, result

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("ignore")]

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def adapter(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter on `blank` that changes what it answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    base = AutoModelForCausalLM.from_pretrained(blank, dtype="float32")
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(5)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight.data, std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def job(blank: Path, adapter: Path, tmp_path: Path) -> Make:
    """Makes a job: `job("merged", bits=…)` of `adapter` on `blank`, or of a `base` that another recipe trained."""

    def make(
        form: str, rows: Any = None, base: Path | None = None, trained_by: str = "sft", name: str = "job", **told: Any
    ) -> Path:
        parameters = {"format": f"EXPORT_FORMAT_{form.upper()}", "trained_by": trained_by, **told}
        rows = conversations(24) if rows is None else rows
        folder = make_job(tmp_path / name, "export", parameters, rows, base=base or blank, validation=rows[:6])
        if base is None:
            (folder / "in" / "base-adapter").symlink_to(adapter)
        return folder

    return make


def metrics_of(folder: Path) -> dict[str, float]:
    said = result(folder)
    assert said["outcome"] == "succeeded", said["error"]
    assert [line["step"] for line in progress(folder, "phase")][-1] == 4
    found: dict[str, float] = said["metrics"]
    assert found["size_ratio"] == pytest.approx(found["export_bytes"] / found["source_bytes"], abs=1e-5)
    return found


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*.safetensors")))


def test_merged_weights_are_the_base_and_its_adapter_and_answer_as_both(job: Make, blank: Path, adapter: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from services.trainer.recipes.exports import merge

    folder = job("merged")
    assert run_recorded(folder, merge.export) == 0
    made, base, low = weights(folder / "out" / "model"), weights(blank), weights(adapter)
    for name, weight in base.items():
        ours = name.removesuffix(".weight")
        pair = [low.get(f"base_model.model.{ours}.lora_{side}.weight") for side in "BA"]
        wanted = weight if pair[0] is None else weight + 8 / 4 * pair[0] @ pair[1]  # Hu et al. 2021: alpha over rank
        torch.testing.assert_close(made[name], wanted, rtol=0, atol=1e-6)
    found = metrics_of(folder)
    assert found["log_prob_drift"] < 1e-5 and found["top1_agreement"] == 1.0 and 0.5 < found["size_ratio"] < 1
    assert result(folder)["artifact"] == {"kind": "full", "path": "out/model"}
    assert result(folder)["environment"]["source_dtype"] == "float32"
    both = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(blank, dtype="float32"), adapter)
    lines = [json.loads(line) for line in (folder / "parity.jsonl").read_text("utf-8").splitlines()]
    for line in lines:
        ids = torch.tensor([line["prompt_token_ids"] + line["completion_token_ids"]])
        logs = both(input_ids=ids).logits[0, len(line["prompt_token_ids"]) - 1 : -1].log_softmax(-1)
        told = logs.gather(1, torch.tensor(line["completion_token_ids"])[:, None])[:, 0].tolist()
        assert told == pytest.approx(line["logprobs"], abs=1e-4)
    assert len(lines) == 6 and not any("dtype" in line for line in lines)


def test_merged_into_another_dtype_is_half_as_large_and_says_what_that_changed(job: Make) -> None:
    import torch

    from services.trainer.recipes.exports import merge

    folder = job("merged", precision="PRECISION_BFLOAT16")
    assert run_recorded(folder, merge.export) == 0
    assert {weight.dtype for weight in weights(folder / "out" / "model").values()} == {torch.bfloat16}
    found = metrics_of(folder)
    assert found["size_ratio"] < 0.55 and 1e-5 < found["log_prob_drift"] < 0.05
    lines = (folder / "parity.jsonl").read_text("utf-8").splitlines()
    assert all(json.loads(line)["dtype"] == "bfloat16" for line in lines)  # what an engine will compute it in


def test_weights_that_are_others_than_the_sources_are_no_export(job: Make) -> None:
    import torch

    from services.trainer.recipes.exports import drift, llama, source, weights
    from services.trainer.recipes.job.failures import RecipeError

    folder = JobDir(job("merged"))
    found = source.load(folder, "sft")
    most = source.longest(found.tokenizer, found.model, 64)
    rows = source.columns(source.held_out(folder), "sft", found.tokenizer, most, 4)
    before = drift.Likelihoods.of(drift.logits_of(found.model), rows)
    with torch.no_grad():
        for weight in found.model.state_dict().values():
            weight += 0.2 * torch.randn_like(weight)
    found.model.save_pretrained(folder.fresh_out())
    found.tokenizer.save_pretrained(folder.out_model)
    with pytest.raises(RecipeError, match=r"The export is broken: .* more than 0\.001\."):
        weights.finish(folder, "sft", found, before, rows, "float32", most)
    assert drift.GGUF.keys() == llama.TYPES.keys()
    for bad in (0.06, float("nan")):
        with pytest.raises(RecipeError, match=r"more than 0\.05\."):
            drift.judged({"log_prob_drift": bad}, drift.GGUF[16])


def test_a_graph_of_small_vectors_is_held_to_their_size_and_to_the_worst_of_them() -> None:
    import torch

    from services.trainer.recipes.exports import graph
    from services.trainer.recipes.job.failures import RecipeError

    torch.manual_seed(1)
    theirs = torch.randn(50, 8) * 1e-3
    assert graph.apart([(theirs, theirs)], vectors=True)["vector_cosine_least"] == pytest.approx(1)
    one = theirs.clone()
    one[7] = one[7].roll(1)
    cases = [(one, True, "cosine of -?0"), (theirs * 1.1, True, "differ by up to"), (theirs + 0.1, False, "up to 0.1")]
    for ours, vectors, why in [*cases, (theirs * float("nan"), False, "up to nan")]:
        with pytest.raises(RecipeError, match=why):
            graph.apart([(theirs, theirs), (ours, theirs)], vectors)


@pytest.fixture(scope="session")
def llama_base(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Llama with two queries a key, whose weights are large enough that their order matters."""
    import torch
    from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2}
    ends = {name: getattr(AutoConfig.from_pretrained(blank), f"{name}_token_id") for name in ("bos", "eos", "pad")}
    size = AutoConfig.from_pretrained(blank).vocab_size
    config = LlamaConfig(vocab_size=size, **shape, **heads, **{f"{k}_token_id": v for k, v in ends.items()})
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("llama") / "model"
    shutil.copytree(blank, folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.prove
@pytest.mark.parametrize(("bits", "drift"), [(16, 2e-3), (8, 5e-2)])
def test_queries_and_keys_of_a_llama_are_turned_as_an_independent_reader_wants_them(
    job: Make, llama_base: Path, bits: int, drift: float
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from services.trainer.recipes.exports import llama

    folder = job("gguf", base=llama_base, bits=bits)
    assert run_recorded(folder, llama.export) == 0
    assert 0 < metrics_of(folder)["log_prob_drift"] < drift
    ours = AutoModelForCausalLM.from_pretrained(llama_base, dtype="float32")
    theirs = AutoModelForCausalLM.from_pretrained(
        folder / "out" / "model", gguf_file=llama.FILE, config=ours.config, dtype="float32"
    )
    ids = torch.tensor([[7, 50, 60, 70, 80]])
    apart = (theirs(ids).logits.log_softmax(-1) - ours(ids).logits.log_softmax(-1)).abs().mean()
    assert apart.item() < drift


@pytest.mark.prove
@pytest.mark.parametrize(("bits", "drift"), [(16, 2e-3), (8, 5e-2)])
def test_a_gguf_file_holds_the_weights_by_an_independent_reader(
    job: Make, tmp_path: Path, bits: int, drift: float
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from services.trainer.recipes.exports import llama, merge

    folder = job("gguf", bits=bits)
    assert run_recorded(folder, llama.export) == 0
    found = metrics_of(folder)
    assert 0 < found["log_prob_drift"] < drift and found["top1_agreement"] > 0.9
    assert found["size_ratio"] < (0.6 if bits == 16 else 0.4)  # the tokenizer is in it
    assert result(folder)["artifact"]["kind"] == "package"
    whole = job("merged", name="merged")
    assert run_recorded(whole, merge.export) == 0
    ours = AutoModelForCausalLM.from_pretrained(whole / "out" / "model", dtype="float32")
    # transformers 5.19 reads no sizes of heads out of the file, so they are told.
    theirs = AutoModelForCausalLM.from_pretrained(
        folder / "out" / "model", gguf_file=llama.FILE, config=ours.config, dtype="float32"
    )
    ids = torch.tensor([[7, 50, 60, 70, 80]])
    apart = (theirs(ids).logits.log_softmax(-1) - ours(ids).logits.log_softmax(-1)).abs().mean()
    assert apart.item() < drift


@pytest.fixture(scope="session")
def llama_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What asks llama.cpp; a test that wants it is skipped where there is no Node.js, and fails where npm does."""
    try:
        return llama_cpp.install(tmp_path_factory.mktemp("llama-cpp"))
    except NotHere as missing:
        pytest.skip(str(missing))


def test_npm_that_cannot_install_is_no_reason_to_skip(tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no registry >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(InstallFailed, match="no registry"):
        fill(str(npm), tmp_path)
    assert not issubclass(InstallFailed, NotHere)


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kind", "bits", "drift", "undecided"),
    [("adapter", 16, 2e-4, 0.02), ("adapter", 8, 3e-3, 0.03), ("llama", 16, 3e-3, 0.05), ("llama", 8, 6e-2, 0.2)],
)  # in nats, twice what was measured: llama.cpp rounds what goes into Q8_0 too
def test_llama_cpp_answers_what_the_version_answers(
    job: Make, llama_base: Path, adapter: Path, llama_script: Path, kind: str, bits: int, drift: float, undecided: float
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from services.trainer.recipes.data.conversations import prompt_ids
    from services.trainer.recipes.exports import llama

    folder = job("gguf", base=llama_base if kind == "llama" else None, bits=bits)
    assert run_recorded(folder, llama.export) == 0
    assert "tokenizer_note" not in result(folder)["environment"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "in" / "base")
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "in" / "base", dtype="float32")
    if kind == "adapter":
        model = PeftModel.from_pretrained(model, adapter)
    file, asked = folder / "out" / "model" / llama.FILE, [row["messages"][:1] for row in conversations(6)]
    texts = [tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in asked]
    compared = 0
    for messages, made in zip(asked, llama_cpp.ask(llama_script, {file: texts}, 16)[file], strict=True):
        assert made.tokens == prompt_ids(tokenizer, messages)
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([made.tokens + made.answer])).logits[0].log_softmax(-1)
        ours = torch.tensor(made.logits).log_softmax(-1)
        assert (ours - theirs[: len(ours)]).abs().mean().item() < drift
        for token, there in zip(made.answer, theirs[len(ours) - 1 :], strict=False):
            first, second = there.topk(2).values.tolist()
            if first - second > undecided:  # closer than that there is no right answer
                assert token == there.argmax().item()
                compared += 1
    assert compared > 40


@pytest.mark.prove
def test_llama_cpp_splits_texts_as_each_tokenizer_does_that_it_has_a_name_for(
    recipes: Any, llama_script: Path, tmp_path: Path
) -> None:
    import torch

    from services.trainer.recipes.exports import llama
    from services.trainer.recipes.exports.source import Source
    from services.trainer.recipes.models.fresh_model import ModelShape, fresh_model
    from tests.recipes.splitting import HARD, WHOLE, tokenizers

    shape, files = ModelShape(**SHAPE), {}
    made = dict(tokenizers())
    assert [name for name, each in made.items() if WHOLE in each.tokenize(HARD[0])] == ["llama-bpe"]
    for name, tokenizer in made.items():
        torch.manual_seed(1)
        model, files[name] = fresh_model(tokenizer, shape), tmp_path / f"{name}.gguf"
        words = llama.words_of(tokenizer, model.config.vocab_size)
        assert (words.split, words.note) == (name, "")
        llama.write(files[name], Source(tokenizer, model, "float32", 0), words, 16)
    told = llama_cpp.ask(llama_script, dict.fromkeys(files.values(), HARD), 0)
    for name, tokenizer in made.items():
        for text, found in zip(HARD, told[files[name]], strict=True):
            assert found.tokens == tokenizer(text, add_special_tokens=False).input_ids, (name, text)


def test_a_chat_template_renders_the_same_without_what_only_training_wants(blank: Path) -> None:
    from jinja2 import Environment
    from transformers import AutoTokenizer

    from services.trainer.recipes.exports.words import spoken

    tokenizer = AutoTokenizer.from_pretrained(blank)
    messages = [*conversations(1)[0]["messages"], {"role": "user", "content": "and\n now?"}]
    plain = Environment(trim_blocks=True, lstrip_blocks=True)
    for template in (
        tokenizer.chat_template,
        "{% for m in messages %}\n {% generation %}\n  {{ m.content }} {%+ endgeneration %}\n{% endfor %}",
    ):
        assert "generation -" in template or "generation %" in template
        for asking in (True, False):
            wanted = tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=asking
            )
            made = plain.from_string(spoken(template)).render(messages=messages, add_generation_prompt=asking)
            assert made == wanted


def test_an_index_finds_documents_exactly_and_names_their_rows_without_their_text(job: Make, encoder: Path) -> None:
    import faiss

    from services.trainer.recipes.exports import index

    rows = fitting(0, 24)
    folder = job("faiss", rows, encoder, "embedding")
    assert run_recorded(folder, index.export) == 0
    found, out = metrics_of(folder), folder / "out" / "model"
    assert (
        found["recall_at_4"] == 1.0
        and found["documents"] == len(FITS) == faiss.read_index(str(out / index.INDEX)).ntotal
    )
    ids = [json.loads(line) for line in (out / index.IDS).read_text("utf-8").splitlines()]
    for each in ids:
        for place in each["rows"]:
            where = rows[:6] if place["split"] == "validation" else rows
            text = where[place["line"] - 1][place["field"]][place["place"]]
            assert FITS.index(text) >= 0 and each["text"] == index_digest(text)
    assert not any(text in (out / index.IDS).read_text("utf-8") for text in FITS)


def index_digest(text: str) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_recall_tells_an_index_that_misses(tmp_path: Path) -> None:
    import faiss
    import numpy as np

    from services.trainer.recipes.exports import index

    random = np.random.default_rng(0)
    made, queries = (random.normal(size=(size, 16)).astype(np.float32) for size in (400, 40))
    lines = "".join(json.dumps({"id": at, "rows": [{}]}) + "\n" for at in range(400))
    (tmp_path / index.IDS).write_text(lines, "utf-8")
    recalls = []
    for wanted in (index.built(made, "flat"), index.built(made, "hnsw"), blind(made)):
        faiss.write_index(wanted, str(tmp_path / index.INDEX))
        recalls.append(index.measured(tmp_path, made, queries, 400)["recall_at_10"])
    assert recalls[0] == 1.0 and recalls[1] > 0.95 and recalls[2] < 0.9


def blind(made: Any) -> Any:
    """An index that looks into one of sixteen cells, in which every document itself is found, and few neighbors."""
    import faiss

    from services.trainer.recipes.exports import index

    cells = faiss.IndexIVFFlat(faiss.IndexFlatIP(made.shape[1]), made.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    cells.train(index.unit(made))
    cells.add(index.unit(made))
    return cells


@pytest.fixture(scope="session")
def encoder(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of sentence-transformers that the recipe `embedding` leaves."""
    for name in ("scipy", "sentence_transformers", "sklearn"):
        if sys.modules.get(name, name) is None:
            del sys.modules[name]  # a recipe that has no need of it hid it in this process
    from services.trainer.recipes import embedding

    plan = {"optimization": {"learning_rate": 0.003, "batch_size": 16, "max_steps": 4, "warmup_ratio": 0.0}}
    folder = make_job(tmp_path_factory.mktemp("encoder") / "job", "embedding", plan, fitting(0, 24), base=bert)
    assert run_recorded(folder, embedding.train) == 0
    return folder / "out" / "model"


def test_what_is_quantized_already_or_of_another_form_is_refused(job: Make, blank: Path) -> None:
    from services.trainer.recipes.exports import merge

    folder = job("merged")
    config = json.loads((blank / "config.json").read_text("utf-8"))
    (folder / "in" / "base" / "config.json").write_text(json.dumps({**config, "quantization_config": {}}), "utf-8")
    assert run_recorded(folder, merge.export) == 1
    assert "is quantized already" in result(folder)["error"]["message"]
    other = job("onnx", name="other")
    assert run_recorded(other, merge.export) == 1
    assert "this is export of merged" in result(other)["error"]["message"]


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sft", "sequence_classification", "reranker", "embedding"])
def test_onnxruntime_computes_what_the_version_does_on_shapes_that_the_graph_was_not_made_with(
    job: Make, bert: Path, encoder: Path, tmp_path: Path, kind: str
) -> None:
    from services.trainer.recipes.exports import graph

    rows = {"sft": conversations(24), "sequence_classification": classified(0, 24)}.get(kind, fitting(0, 24))
    base = {"sft": None, "embedding": encoder}.get(kind, bert)
    if base == bert:
        from services.trainer.recipes import reranker, sequence_classification

        trained = {"reranker": reranker, "sequence_classification": sequence_classification}[kind]
        plan = {"optimization": {"learning_rate": 1e-3, "batch_size": 16, "max_steps": 2}}
        first = make_job(tmp_path / "trained", kind, plan, rows, base=bert)
        assert run_recorded(first, trained.train) == 0
        base = first / "out" / "model"
    folder = job("onnx", rows, base, kind)
    assert run_recorded(folder, graph.export) == 0
    found = metrics_of(folder)
    assert found["max_abs_difference"] < 1e-4 and found["checked_shapes"] > 3
    if kind == "sft":
        assert found["log_prob_drift"] < 1e-5 and found["top1_agreement"] == 1.0
    if kind == "embedding":
        assert found["vector_cosine"] >= found["vector_cosine_least"] > 0.999999
    assert (folder / "out" / "model" / graph.FILE).is_file() and result(folder)["artifact"]["kind"] == "package"


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["gptq", "awq"])
@pytest.mark.skipif(not QUANTIZATION_PYTHON.is_file(), reason="`make quantization` makes the environment")
def test_weights_of_four_bits_come_from_an_environment_of_their_own(job: Make, form: str) -> None:
    folder = job(form)
    command = [str(QUANTIZATION_PYTHON), "-m", "services.trainer.recipes.exports.quantize", str(folder)]
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=kept, check=True, capture_output=True, cwd=folder)
    found, said = metrics_of(folder), result(folder)
    assert said["environment"]["quantization"] == f"{form} int4 in groups of 32"
    assert found["size_ratio"] < 0.6 and 0 < found["log_prob_drift"] < 0.5 and found["top1_agreement"] > 0.5
    config = json.loads((folder / "out" / "model" / "config.json").read_text("utf-8"))
    scheme = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert (scheme["num_bits"], scheme["group_size"], scheme["symmetric"]) == (4, 32, form == "gptq")
    assert not any(
        file.suffix not in (".json", ".jinja", ".safetensors") for file in (folder / "out" / "model").iterdir()
    )
