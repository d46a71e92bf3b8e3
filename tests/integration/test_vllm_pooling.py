"""The real vLLM with models that do not chat: an embedder that ranks too, a classifier, and one of the wrong kind."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.engines import ENGINES
from services.gateway.engines.errors import WrongKind
from services.gateway.engines.host import EngineHost, Running
from services.gateway.engines.protocol import Sizing

numpy = pytest.importorskip("numpy")
safetensors = pytest.importorskip("safetensors.numpy")
tokenizers = pytest.importorskip("tokenizers")

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]

HIDDEN, LAYERS, INNER, POSITIONS, LONGEST = 64, 2, 128, 64, 12
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lost", "card", "new", "fee", "branch", "opens", "at", "nine"]
LABELS = ["card", "transfer", "loan"]
BASE = hashlib.sha256(b"pooling").hexdigest()
LAYER = {
    "attention.self.query": (HIDDEN, HIDDEN),
    "attention.self.key": (HIDDEN, HIDDEN),
    "attention.self.value": (HIDDEN, HIDDEN),
    "attention.output.dense": (HIDDEN, HIDDEN),
    "attention.output.LayerNorm": (HIDDEN,),
    "intermediate.dense": (INNER, HIDDEN),
    "output.dense": (HIDDEN, INNER),
    "output.LayerNorm": (HIDDEN,),
}


def write_bert(folder: Path, architecture: str, heads: dict[str, tuple[int, ...]], prefix: str = "") -> Path:
    """A random BERT as files alone (torch is not wanted here); its config names no dtype, as that of many."""
    folder.mkdir()
    random = numpy.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}embeddings.word_embeddings": (len(WORDS), HIDDEN),
        f"{prefix}embeddings.position_embeddings": (POSITIONS, HIDDEN),
        f"{prefix}embeddings.token_type_embeddings": (2, HIDDEN),
        f"{prefix}embeddings.LayerNorm": (HIDDEN,),
        f"{prefix}pooler.dense": (HIDDEN, HIDDEN),
        **{f"{prefix}encoder.layer.{n}.{name}": shape for n in range(LAYERS) for name, shape in LAYER.items()},
        **heads,
    }
    weights = {}
    for name, shape in shapes.items():
        weight = random.normal(0, 0.3, shape) if len(shape) == 2 else numpy.ones(shape)
        weights[f"{name}.weight"] = weight.astype("float32")
        if not name.endswith("_embeddings"):
            weights[f"{name}.bias"] = numpy.zeros(shape[0], "float32")
    safetensors.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": [architecture],
        "model_type": "bert",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": INNER,
        "vocab_size": len(WORDS),
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "id2label": dict(enumerate(LABELS)),
        "label2id": {label: place for place, label in enumerate(LABELS)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")]
    template = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    tokenizer.post_processor = template
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_embedder(folder: Path) -> Path:
    """A folder as sentence-transformers writes it: mean of the tokens, normalised; no text of more than 12 tokens."""
    write_bert(folder, "BertModel", {})
    home = "sentence_transformers.models"
    kinds = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    modules = [
        {"idx": n, "name": name, "path": path, "type": f"{home}.{kind}"} for n, (name, path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 100, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    (folder / "2_Normalize").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[EngineHost]:
    made = EngineHost(tmp_path / "engines", ENGINES["vllm"], sizing=Sizing(max_model_len=128))
    try:
        yield made
    finally:
        await made.stop(BASE)
    assert made.list() == ()


async def ask(running: Running, path: str, status: int = 200, **body: object) -> Any:
    headers = {"authorization": f"Bearer {running.key}"}
    async with httpx.AsyncClient(base_url=running.url, headers=headers, trust_env=False, timeout=60) as client:
        answer = await client.post(path, json={"model": running.model, **body})
    assert answer.status_code == status, answer.text[:300]
    return answer.json()


@pytest.mark.prove
async def test_vllm_embeds_and_ranks(host: EngineHost, tmp_path: Path) -> None:
    running = await host.ensure(write_embedder(tmp_path / "base"), BASE, task="embed")
    texts = ["lost card", "new card", "branch opens at nine", "fee"]
    told = await ask(running, "/v1/embeddings", input=texts)
    vectors = numpy.array([each["embedding"] for each in told["data"]])
    assert vectors.shape == (4, HIDDEN) and told["usage"]["prompt_tokens"] == 2 * 4 + 2 + 2 + 4 + 1
    assert numpy.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)  # the Normalize module was read
    assert numpy.abs(vectors @ vectors.T - numpy.eye(4)).max() > 1e-3  # and not all are alike
    ranking = await ask(running, "/rerank", query=texts[0], documents=texts[1:])
    scores = {each["index"]: each["relevance_score"] for each in ranking["results"]}
    cosines = vectors[1:] @ vectors[0]
    assert [scores[place] for place in range(3)] == pytest.approx(cosines.tolist(), abs=1e-5)
    assert [each["index"] for each in ranking["results"]] == numpy.argsort(-cosines).tolist()
    await ask(running, "/v1/embeddings", 400, input=" ".join(["card"] * LONGEST))
    await ask(running, "/v1/chat/completions", 404, messages=[{"role": "user", "content": "card"}])


@pytest.mark.prove
async def test_vllm_classifies(host: EngineHost, tmp_path: Path) -> None:
    heads = {"classifier": (len(LABELS), HIDDEN)}
    base = write_bert(tmp_path / "base", "BertForSequenceClassification", heads, prefix="bert.")
    running = await host.ensure(base, BASE, task="classify")
    raw = (await ask(running, "/classify", input=["lost card"], use_activation=False))["data"][0]["probs"]
    told = (await ask(running, "/classify", input=["lost card"]))["data"][0]
    powers = numpy.exp(raw)
    assert told["probs"] == pytest.approx((powers / powers.sum()).tolist(), abs=1e-5)
    assert told["label"] == LABELS[int(numpy.argmax(raw))]


@pytest.mark.prove
async def test_vllm_names_spans(host: EngineHost, tmp_path: Path) -> None:
    heads = {"classifier": (len(LABELS), HIDDEN)}
    base = write_bert(tmp_path / "base", "BertForTokenClassification", heads, prefix="bert.")
    running = await host.ensure(base, BASE, task="tag")
    (raw,) = (await ask(running, "/pooling", input=["lost card at nine"], use_activation=False))["data"]
    powers = numpy.exp(numpy.array(raw["data"]))
    shares = powers / powers.sum(1, keepdims=True)
    best = [(LABELS[place], shares[row, place]) for row, place in enumerate(shares.argmax(1))][1:-1]
    (found,) = (await ask(running, "/entities", input=["lost card at nine"]))["data"]
    places, named = [(0, 4), (5, 9), (10, 12), (13, 17)], []
    for (start, end), (label, share) in zip(places, best, strict=True):  # a bare name goes on from token to token
        if named and named[-1]["label"] == label:
            named[-1]["end"], named[-1]["shares"] = end, [*named[-1]["shares"], share]
        else:
            named.append({"start": start, "end": end, "label": label, "shares": [share]})
    wanted = [(each["start"], each["end"], each["label"]) for each in named]
    assert [(each["start"], each["end"], each["label"]) for each in found["entities"]] == wanted
    scores = [float(numpy.mean(each["shares"])) for each in named]
    assert [each["score"] for each in found["entities"]] == pytest.approx(scores, abs=1e-5)
    long = await ask(running, "/entities", input=" ".join(["card"] * 2 * LONGEST))  # what is too long is cut
    assert long["usage"]["prompt_tokens"] == LONGEST
    await ask(running, "/entities", 400, input=[3])


@pytest.mark.prove
async def test_vllm_ranks_by_a_head(host: EngineHost, tmp_path: Path) -> None:
    base = write_bert(tmp_path / "base", "BertForSequenceClassification", {"classifier": (1, HIDDEN)}, prefix="bert.")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}))
    running = await host.ensure(base, BASE, task="score")
    asked = {"query": "lost card", "documents": ["new card", "fee"]}
    logits = {each["index"]: each["relevance_score"] for each in
              (await ask(running, "/rerank", use_activation=False, **asked))["results"]}  # fmt: skip
    for each in (await ask(running, "/rerank", **asked))["results"]:
        assert each["relevance_score"] == pytest.approx(1 / (1 + numpy.exp(-logits[each["index"]])), abs=1e-5)


@pytest.mark.prove
async def test_vllm_tells_a_model_of_another_kind(host: EngineHost, tmp_path: Path) -> None:
    with pytest.raises(WrongKind, match="is no model for classification"):
        await host.ensure(write_embedder(tmp_path / "base"), BASE, task="classify")
    assert not host.wanted()
