"""Job directories of what the planner is measured with: models with random weights and rows of full length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def decoder(
    kind: str, vocabulary: int, width: int, inner: int, layers: int, heads: int, kv_heads: int
) -> dict[str, Any]:
    """A config.json."""
    return {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width // heads,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": kind == "qwen3",
    }


MODELS: dict[str, dict[str, Any]] = {
    "138M": decoder("qwen3", 32_000, 768, 3072, 12, 12, 12),  # as wide as it is usual
    "105M": decoder("qwen3", 151_936, 512, 1536, 8, 8, 4),  # most of it vocabulary
    "llama": decoder("llama", 16_384, 1024, 2816, 12, 16, 4),  # its head apart
    "bert": {
        "model_type": "bert",
        "vocab_size": 30_522,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    },
}


def make_jobs(folder: Path) -> None:
    """Writes the directories of `cases.json`: `spec.json`, rows, and links to the models, each from its config.json."""
    from services.trainer.recipes.job.offline import prepare_process

    prepare_process()
    tokenizer, cases = _tokenizer(), json.loads((folder / "cases.json").read_text("utf-8"))
    for name in {name for case in cases for name in case["models"].values()}:
        _make_model(folder / "models" / name, name, tokenizer)
    for case in cases:
        _make_job(folder / case["name"], case, tokenizer)


def _make_model(folder: Path, name: str, tokenizer: Any) -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, set_seed

    set_seed(1)
    config = AutoConfig.for_model(**MODELS[name], eos_token_id=tokenizer.eos_token_id)
    kind: Any = AutoModel if name == "bert" else AutoModelForCausalLM
    kind.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_job(folder: Path, case: Mapping[str, Any], tokenizer: Any) -> None:
    recipe, spec = case["recipe"], case["spec"]
    (folder / "in").mkdir(parents=True)
    for role, name in case["models"].items():
        (folder / "in" / role).symlink_to(folder.parent / "models" / name)
    parameters = {name: value for name, value in spec.items() if name != recipe} | spec[recipe]
    told = {"job": "jobs/1", "attempt": 1, "task_type": recipe, "recipe": recipe, "seed": 1, "parameters": parameters}
    (folder / "spec.json").write_text(json.dumps(told), "utf-8")
    count = 4 * spec["optimization"]["batch_size"]
    rows = [_row(recipe, tokenizer, spec, number) for number in range(count)]
    (folder / "in" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _tokenizer() -> Any:
    """One of bytes, but for a word or two; the models have more tokens than it knows."""
    from services.trainer.recipes.models.fresh_model import ModelShape, train_tokenizer

    return train_tokenizer(["aaaa"], ModelShape(vocab_size=300, max_position_embeddings=2048))


def _row(recipe: str, tokenizer: Any, case: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A row that has exactly as many tokens as are allowed, with its answer; letters of a word are a token each."""
    length, new = case["max_length"], case[recipe].get("max_new_tokens", 0)
    if recipe == "token_classification":
        text = _word(length, number)
        return {"text": text, "entities": [{"start": 0, "end": 4, "label": ("card", "loan")[number % 2]}]}
    asked = [{"role": "user", "content": "q"}]
    said = {"role": "assistant", "content": ""}
    bare = len(tokenizer.apply_chat_template([*asked, said], return_dict=True)["input_ids"])
    if new:  # the model answers by itself: it is the question that is long
        begun = len(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"])
        asked[0]["content"] += _word(length - new - begun, number)
        return {"messages": [*asked, {**said, "content": "x"}]}
    answer = {**said, "content": _word(length - bare, number)}
    other = {**said, "content": _word(length - bare, number + 1)}
    if recipe in ("dpo", "orpo", "cpo", "simpo", "rm"):
        return {"prompt": asked, "chosen": [answer], "rejected": [other]}
    if recipe == "kto":
        return {"prompt": asked, "completion": [answer], "label": bool(number % 2)}
    return {"messages": [*asked, answer]}


def _word(tokens: int, number: int) -> str:
    return "xyzw"[number % 4] * tokens
