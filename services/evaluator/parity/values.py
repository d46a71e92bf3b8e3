"""Compares numbers, value by value: vectors of texts, scores of classes, of documents for queries, of tags of tokens.

A probe has its `kind`, the text as a client puts it, `token_ids`, which the model saw, `values`, and `dtype`, the kind
of number that the weights were computed in (absent means `float32`):

| kind | as a client puts it | values |
|---|---|---|
| `vector` | `input` | the vector, after pooling and, where the model has it, normalization |
| `logits` | `input`, or `messages` | one for each class, before any activation |
| `score` | `query` and `document` | the one logit of the pair |
| `tokens` | `input` | one for each class of each token, before any activation, token by token |

The engine is asked as a client would ask and, but for a pair and for images, which ids do not hold, with the recipe's
token ids. The first alone finds a chat template that one of both leaves out, and texts that are cut at another length;
the second other weights and pooling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.evaluator.asking import Engine
from services.evaluator.parity.found import Found, largest
from services.evaluator.parity.tokens import has_parts

NOTHING = "the engine gives no values or no count of tokens, so it cannot be compared"
PATHS = {"vector": "/v1/embeddings", "logits": "/v1/classify", "score": "/v1/rerank", "tokens": "/v1/pooling"}
#: How far values may differ, as a share of the largest of them; of logits that are small, of 1. On CPU, engine and
#: transformers were 1e-6 apart for vectors and 8e-6 for logits up to 2.4; between bfloat16 and float32 it was 0.043.
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 5e-2}


async def compare(found: Found, probe: str, wanted: Mapping[str, Any], engine: Engine, model: str) -> None:
    """Compares one probe. Raises NoAnswer, Unavailable, and KeyError and its like where an answer lacks something."""
    kind, expected, token_ids = wanted["kind"], wanted["values"], wanted["token_ids"]
    if kind not in PATHS:
        return found.differs(probe, "nothing of this kind can be compared here")
    tolerance = TOLERANCES.get(wanted.get("dtype", "float32"), 0.0)
    if not tolerance:
        return found.differs(probe, "numbers of this type cannot be compared here")
    tolerance *= max(0.0 if kind == "vector" else 1.0, largest(map(abs, expected))[0])
    ours, tokens = await _asked(engine, model, kind, _body(wanted))
    whole = kind == "score" or has_parts(wanted)
    of_ids = ours if whole else (await _asked(engine, model, kind, {"input": token_ids}))[0]
    if tokens != len(token_ids):
        found.differs(probe, f"the engine reads it as {tokens} tokens and the recipe as {len(token_ids)}")
    elif _equal(found, probe, of_ids, ours, tolerance, "of its text and of the recipe's tokens of it"):
        found.parity.equal_prompts += 1
    if _equal(found, probe, expected, of_ids, tolerance, "of engine and recipe"):
        found.parity.equal_answers += 1
    if len(expected) == len(of_ids):
        apart, _ = largest(abs(a - b) for a, b in zip(expected, of_ids, strict=True))
        found.parity.max_value_difference = max(found.parity.max_value_difference, apart)


def _body(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The request of a client."""
    if wanted["kind"] == "score":
        return {"query": wanted["query"], "documents": [wanted["document"]]}
    return {key: wanted[key] for key in ("messages", "input") if key in wanted}


async def _asked(engine: Engine, model: str, kind: str, body: Mapping[str, Any]) -> tuple[list[float], int]:
    """The values that a request gives, and how many tokens it was."""
    how = {"encoding_format": "float"} if kind == "vector" else {"use_activation": False}
    answer = await engine.post(PATHS[kind], {"model": model, **how, **body})
    match kind:
        case "vector":
            values = answer["data"][0]["embedding"]
        case "logits":
            values = answer["data"][0]["probs"]
        case "tokens":
            values = [value for token in answer["data"][0]["data"] for value in token]
        case _:
            values = [answer["results"][0]["relevance_score"]]
    return [float(each) for each in values], int(answer["usage"]["prompt_tokens"])


def _equal(
    found: Found, probe: str, one: Sequence[float], other: Sequence[float], tolerance: float, which: str
) -> bool:
    """Whether two are equal, within the tolerance; records how they are not."""
    if len(one) != len(other):
        found.differs(probe, f"the values {which} are {len(other)} and {len(one)}")
        return False
    apart, finite = largest(abs(a - b) for a, b in zip(one, other, strict=True))
    if not finite:
        found.differs(probe, f"a value {which} is not a number")
    elif apart > tolerance:
        found.differs(probe, f"the values {which} differ by {apart:.2g}, more than {tolerance:.2g}")
    return finite and apart <= tolerance
