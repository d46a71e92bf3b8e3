"""Puts questions to a model in the way of its interface, and makes a string of what comes; what is right it knows not.

An answer is words, `chosen`, `rejected` or `tie`, a JSON list of labels or of spans, or a JSON list of places, the best
first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.evaluator.asking import Engine, NoAnswer
from services.evaluator.metrics import Kind
from services.evaluator.questions import CHAT, Question
from sluice.senses import Sense
from sluice.spans import Span

#: Scores that differ by less than half of this, which rounding and batching do, are equal.
DIGITS = 5
#: A text that is too long is cut, as in training.
CUT = {"truncate_prompt_tokens": -1}


@dataclass(frozen=True)
class Classes:
    """The names of a model's classes in their order, and whether a text may have several; nothing where unknown."""

    names: tuple[str, ...] = ()
    several: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Classes:
        """The classes that a ``config.json`` of transformers tells of."""
        names = {int(place): str(name) for place, name in (config.get("id2label") or {}).items()}
        several = config.get("problem_type") == "multi_label_classification"
        return cls(tuple(names[place] for place in sorted(names)), several)


@dataclass(frozen=True)
class Model:
    """A model behind a gateway's HTTP port: ``name`` is what requests call it, ``senses`` what it takes beside text."""

    engine: Engine
    name: str
    interface: str = CHAT
    classes: Classes = Classes()
    senses: frozenset[Sense] = frozenset()

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON that a request gives. Raises as ``Engine.post``."""
        return await self.engine.post(path, {"model": self.name, **body})


async def answer(model: Model, question: Question, max_tokens: int) -> str:
    """What a model answers to a question, of at most ``max_tokens`` tokens where it answers in words.

    Raises NoAnswer where it gives none, or nothing of the kind; Unavailable where nobody is there to answer.
    """
    head = HEADS[model.interface, question.kind]
    try:
        return await head(model, question.asked, max_tokens)
    except (KeyError, IndexError, TypeError, ValueError):
        raise NoAnswer(f"the engine's answer is not what its interface `{model.interface}` gives") from None


async def said(model: Model, asked: Mapping[str, Any], max_tokens: int) -> str:
    """The most probable words after `messages` or a `prompt`."""
    chat = "messages" in asked
    body = {**asked, "max_tokens": max_tokens, "temperature": 0, "seed": 0}
    choice = (await model.post("/v1/chat/completions" if chat else "/v1/completions", body))["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    if text is not None and not isinstance(text, str):
        raise ValueError("not words")
    return text or ""


async def likelier(model: Model, asked: Mapping[str, Any], max_tokens: int) -> str:
    """Which of two answers a model finds likelier: the mean natural log-probability of a token decides.

    The mean and not the sum, so that length does not decide: that is the reward of SimPO (Meng et al. 2024,
    arXiv:2405.14734), and sums favor short answers. What the chat template puts after an answer is not counted.
    """
    prompt = asked["prompt"]
    body = {"messages": prompt, "max_tokens": 1, "temperature": 0, "return_token_ids": True}
    before = (await model.post("/v1/chat/completions", body))["prompt_token_ids"]
    chosen, rejected = [await _likelihood(model, [*prompt, *asked[side]], before) for side in ("chosen", "rejected")]
    return _preferred(chosen, rejected)


async def better(model: Model, asked: Mapping[str, Any], max_tokens: int) -> str:
    """Which of two answers a reward model scores higher, before any activation."""
    rewards = []
    for side in ("chosen", "rejected"):
        body = {"messages": [*asked["prompt"], *asked[side]], "use_activation": False}
        (reward,) = (await model.post("/v1/classify", body))["data"][0]["probs"]
        rewards.append(float(reward))
    return _preferred(*rewards)


async def labels(model: Model, asked: Mapping[str, Any], max_tokens: int) -> str:
    """The most probable label; where a text may have several, those of a probability of ½ at least.

    A text with images is not cut, as that could take a part of one.
    """
    body = {"messages": asked["messages"]} if "messages" in asked else {"input": asked["text"], **CUT}
    found = (await model.post("/v1/classify", body))["data"][0]
    probabilities = _finite(found["probs"])
    if model.classes.several:
        pairs = zip(model.classes.names, probabilities, strict=True)
        return json.dumps(sorted(name for name, share in pairs if share >= 0.5), ensure_ascii=False)
    name = found.get("label")
    if name is None:
        name = model.classes.names[probabilities.index(max(probabilities))]
    return json.dumps([str(name)], ensure_ascii=False)


async def named(model: Model, asked: Mapping[str, Any], max_tokens: int) -> str:
    """The spans that a model names, by place and name."""
    found = (await model.post("/v1/entities", {"input": asked["text"]}))["data"][0]["entities"]
    spans = {Span(int(each["start"]), int(each["end"]), str(each["label"])).key for each in found}
    return json.dumps(sorted(spans), ensure_ascii=False)


async def nearest(model: Model, asked: Mapping[str, Any], max_tokens: int) -> str:
    """Documents by the cosine of their vectors with that of the query."""
    import numpy as np

    texts = [asked["query"], *asked["documents"]]
    body = {"input": texts, "encoding_format": "float", **CUT}
    data = sorted((await model.post("/v1/embeddings", body))["data"], key=lambda each: each["index"])
    vectors = np.asarray([each["embedding"] for each in data], dtype=np.float64)
    if len(vectors) != len(texts):
        raise ValueError("not a vector for each text")
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), np.finfo(np.float64).tiny)
    return _order(((vectors[1:] @ vectors[0]) / (lengths[1:] * lengths[0])).tolist())


async def most_relevant(model: Model, asked: Mapping[str, Any], max_tokens: int) -> str:
    """Documents by their score for the query, before any activation, which saturates."""
    body = {"query": asked["query"], "documents": asked["documents"], "use_activation": False, **CUT}
    results = (await model.post("/v1/rerank", body))["results"]
    scores = {int(each["index"]): each["relevance_score"] for each in results}
    return _order([scores[place] for place in range(len(asked["documents"]))])


HEADS: dict[tuple[str, Kind], Callable[[Model, Mapping[str, Any], int], Awaitable[str]]] = {
    (CHAT, "text"): said,
    (CHAT, "preference"): likelier,
    ("classify", "preference"): better,
    ("classify", "labels"): labels,
    ("entities", "spans"): named,
    ("embeddings", "ranking"): nearest,
    ("rerank", "ranking"): most_relevant,
}


async def _likelihood(model: Model, messages: Sequence[Mapping[str, str]], before: Sequence[int]) -> float:
    body = {
        "messages": messages,
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "return_token_ids": True,
    }
    found = await model.post("/v1/chat/completions", body)
    ids, logprobs = found["prompt_token_ids"], found["prompt_logprobs"]
    # The end of the prompt and the start of the answer may be one token: it counts.
    start = next((i for i, (a, b) in enumerate(zip(ids, before, strict=False)) if a != b), min(len(ids), len(before)))
    values = [float(logprobs[place][str(ids[place])]["logprob"]) for place in range(start, len(ids))]
    if not values:
        raise ValueError("no token of an answer")
    return math.fsum(values) / len(values)


def _preferred(chosen: float, rejected: float) -> str:
    apart = round(_finite([chosen - rejected])[0], DIGITS)
    return "tie" if not apart else "chosen" if apart > 0 else "rejected"


def _order(scores: Sequence[float]) -> str:
    """Places, the highest score first; of equal ones in the order they have."""
    rounded = [round(each, DIGITS) for each in _finite(scores)]
    return json.dumps(sorted(range(len(rounded)), key=lambda place: (-rounded[place], place)))


def _finite(values: Sequence[float]) -> list[float]:
    """The values; ValueError when one is not a number."""
    if not all(math.isfinite(each) for each in values):
        raise ValueError("not a number")
    return list(values)
