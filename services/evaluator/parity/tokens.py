"""Compares greedy answers, token by token.

A line has ``messages`` or ``prompt``, ``prompt_token_ids``, ``completion_token_ids`` (greedy, the end token included)
and ``logprobs``, computed in ``dtype`` (absent: ``float32``). The engine is asked twice: as a client would ask, for
the token ids it renders, and with the recipe's token ids, for its greedy answer; where pictures are among the messages,
which ids do not hold, as a client again. An engine that gives no token ids or log-probabilities (vLLM does:
``return_token_ids``, ``logprobs``) cannot be compared and does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from services.evaluator.asking import Engine
from services.evaluator.parity.found import Found, largest

TOP = 5
#: How many times further log-probabilities of rounder numbers may be apart than those of float32. On CPU, vLLM and
#: transformers were 0.075 nats apart at most for a model of 4-bit weights in bfloat16, 0.008 in the mean.
ROUNDER = {"float32": 1.0, "bfloat16": 20.0, "float16": 20.0}
#: The mean difference may be so many times the tolerance of float32, for rounder numbers too: of the latter
#: more than twice the mean that was measured.
IN_THE_MEAN = 2.0
#: The share of all tokens that must be compared; past a token that differs nothing can be.
LEAST_SHARE = 0.5
NOTHING = "the engine gives no token ids or log-probabilities, so it cannot be compared"


class Answer(NamedTuple):
    """Tokens, the log-probability of each, and those of the likeliest tokens in each place, by `token_id:…`."""

    token_ids: list[int]
    logprobs: list[float]
    likeliest: Sequence[Mapping[str, float]]


async def compare(found: Found, probe: str, wanted: Mapping[str, Any], engine: Engine, model: str) -> None:
    """Compares one line. Raises NoAnswer, Unavailable, and KeyError and its like where an answer lacks something."""
    await _compare_prompt(found, probe, wanted, engine, model)
    ask = _seen if has_parts(wanted) else _continued
    _compare_answer(found, probe, wanted, await ask(wanted, engine, model))


async def _compare_prompt(found: Found, probe: str, wanted: Mapping[str, Any], engine: Engine, model: str) -> None:
    asked = {key: wanted[key] for key in ("messages", "prompt") if key in wanted}
    body = {"model": model, **asked, "max_tokens": 1, "temperature": 0, "return_token_ids": True}
    if "messages" in asked:
        rendered = (await engine.post("/v1/chat/completions", body))["prompt_token_ids"]
    else:
        rendered = (await engine.post("/v1/completions", body))["choices"][0]["prompt_token_ids"]
    expected = wanted["prompt_token_ids"]
    if list(rendered) == expected:
        found.parity.equal_prompts += 1
        return
    place = _first_difference(rendered, expected) + 1
    found.differs(
        probe,
        f"the engine renders it as {len(rendered)} tokens and the recipe as {len(expected)}; token {place} differs",
    )


async def _continued(wanted: Mapping[str, Any], engine: Engine, model: str) -> Answer:
    """The greedy answer to the recipe's token ids."""
    body = {"prompt": wanted["prompt_token_ids"], "logprobs": TOP, **_greedy(wanted, model)}
    choice = (await engine.post("/v1/completions", body))["choices"][0]
    logprobs = choice["logprobs"]
    return Answer(list(choice["token_ids"]), logprobs["token_logprobs"], logprobs["top_logprobs"])


async def _seen(wanted: Mapping[str, Any], engine: Engine, model: str) -> Answer:
    """The greedy answer to messages with pictures."""
    body = {"messages": wanted["messages"], "logprobs": True, "top_logprobs": TOP, **_greedy(wanted, model)}
    choice = (await engine.post("/v1/chat/completions", body))["choices"][0]
    content = choice["logprobs"]["content"]
    likeliest = [{each["token"]: each["logprob"] for each in (*place["top_logprobs"], place)} for place in content]
    return Answer(list(choice["token_ids"]), [place["logprob"] for place in content], likeliest)


def _greedy(wanted: Mapping[str, Any], model: str) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": len(wanted["completion_token_ids"]),
        "temperature": 0,
        "seed": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def has_parts(wanted: Mapping[str, Any]) -> bool:
    """Whether a message is made of parts, as one with a picture is."""
    return any(not isinstance(message["content"], str) for message in wanted.get("messages", ()))


def _compare_answer(found: Found, probe: str, wanted: Mapping[str, Any], given: Answer) -> None:
    expected, answer = wanted["completion_token_ids"], given.token_ids
    tolerance = found.tolerance * ROUNDER[wanted.get("dtype", "float32")]
    equal = _first_difference(answer, expected)
    pairs = zip(given.logprobs[:equal], wanted["logprobs"][:equal], strict=True)
    apart = [abs(float(ours) - float(theirs)) for ours, theirs in pairs]
    worst, finite = largest(apart)
    if not expected:
        found.differs(probe, "the recipe's answer has no tokens, so nothing can be compared")
    found.tokens += len(expected)
    found.compared += equal
    found.apart += sum(apart)
    found.parity.max_log_probability_difference = max(found.parity.max_log_probability_difference, worst)
    if not finite:
        found.differs(probe, "a log-probability is not a number")
    if worst > tolerance:
        found.differs(probe, f"a log-probability differs by {worst:.2g} nats, more than {tolerance:g}")
    if answer == expected:
        found.parity.equal_answers += 1
    elif equal == min(len(answer), len(expected)):
        found.differs(probe, f"the engine answers {len(answer)} tokens and the recipe {len(expected)}")
    elif not (margin := _margin(given.likeliest[equal], answer[equal], expected[equal])) <= tolerance:
        found.differs(
            probe, f"token {equal + 1} of the answer differs, and the engine prefers its own by {margin:.2g} nats"
        )


def conclude(found: Found) -> None:
    """Finds what no single prompt shows: too few tokens that could be compared, or many that are a little apart."""
    if found.compared < LEAST_SHARE * found.tokens:
        return found.differs(
            "all prompts", f"only {found.compared} of {found.tokens} tokens could be compared, fewer than half"
        )
    mean, most = found.apart / max(1, found.compared), IN_THE_MEAN * found.tolerance
    if mean > most:
        found.differs("all prompts", f"log-probabilities differ by {mean:.2g} nats in the mean, more than {most:g}")


def _margin(top: Mapping[str, float], ours: int, theirs: int) -> float:
    """By how much the engine prefers its token, in nats; infinite when the other is not among its best."""
    likely = top.get(f"token_id:{theirs}")
    return float("inf") if likely is None else float(top[f"token_id:{ours}"]) - float(likely)


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """Where two sequences first differ; the length of the shorter where it starts the longer."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
