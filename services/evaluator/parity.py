"""Holds the engine to what the recipe's own weights answered, token by token; it imports no recipe.

The recipe leaves JSON lines: ``messages`` or ``prompt``, ``prompt_token_ids``, ``completion_token_ids`` (greedy, the
end token included) and ``logprobs``. The engine is asked twice a line: as a client would ask, for the token ids it
renders, and with the recipe's token ids, for its greedy answer. An engine that gives no token ids or log-probabilities
(vLLM does: ``return_token_ids``, ``logprobs``) cannot be compared and does not pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.evaluator.asking import Engine, NoAnswer
from sluice.evaluator import v1 as evaluator

TOP = 5
NO_IDS = "the engine gives no token ids or log-probabilities, so it cannot be compared"


@dataclass
class _Found:
    """What is known after some prompts."""

    tolerance: float
    parity: evaluator.Parity = field(default_factory=evaluator.Parity)

    def differs(self, prompt: int, what: str) -> None:
        """Records the first difference."""
        self.parity.first_difference = self.parity.first_difference or f"prompt {prompt}: {what}"


async def compare(content: bytes, engine: Engine, model: str, tolerance: float) -> evaluator.Parity:
    """Compares every prompt of a ``parity.jsonl`` with what ``model`` gives.

    It passes when all prompts are rendered alike, greedy answers differ only where the engine held both tokens for
    equally likely, and log-probabilities differ by at most ``tolerance`` nats. Raises Unavailable.
    """
    found = _Found(tolerance)
    for prompt, line in enumerate(filter(bytes.strip, content.split(b"\n")), start=1):
        wanted = json.loads(line)
        found.parity.prompts += 1
        try:
            await _compare_prompt(found, prompt, wanted, engine, model)
            await _compare_answer(found, prompt, wanted, engine, model)
        except NoAnswer as error:
            found.differs(prompt, str(error))
        except (KeyError, IndexError, TypeError, ValueError):
            found.differs(prompt, NO_IDS)
    found.parity.passed = bool(found.parity.prompts) and not found.parity.first_difference
    return found.parity


async def _compare_prompt(found: _Found, prompt: int, wanted: Mapping[str, Any], engine: Engine, model: str) -> None:
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
        prompt,
        f"the engine renders it as {len(rendered)} tokens and the recipe as {len(expected)}; token {place} differs",
    )


async def _compare_answer(found: _Found, prompt: int, wanted: Mapping[str, Any], engine: Engine, model: str) -> None:
    expected, wanted_logprobs = wanted["completion_token_ids"], wanted["logprobs"]
    body = {
        "model": model,
        "prompt": wanted["prompt_token_ids"],
        "max_tokens": len(expected),
        "temperature": 0,
        "seed": 0,
        "logprobs": TOP,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }
    choice = (await engine.post("/v1/completions", body))["choices"][0]
    answer, logprobs = list(choice["token_ids"]), choice["logprobs"]
    equal = _first_difference(answer, expected)
    pairs = zip(logprobs["token_logprobs"][:equal], wanted_logprobs[:equal], strict=True)
    differences = [abs(float(ours) - float(theirs)) for ours, theirs in pairs]
    finite = [each for each in differences if math.isfinite(each)]
    worst = max(finite, default=0.0)
    found.parity.max_log_probability_difference = max(found.parity.max_log_probability_difference, worst)
    if len(finite) < len(differences):
        found.differs(prompt, "a log-probability is not a number")
    if worst > found.tolerance:
        found.differs(prompt, f"a log-probability differs by {worst:.2g} nats, more than {found.tolerance:g}")
    if answer == expected:
        found.parity.equal_answers += 1
    elif equal == min(len(answer), len(expected)):
        found.differs(prompt, f"the engine answers {len(answer)} tokens and the recipe {len(expected)}")
    elif not (margin := _margin(logprobs["top_logprobs"][equal], answer[equal], expected[equal])) <= found.tolerance:
        found.differs(
            prompt, f"token {equal + 1} of the answer differs, and the engine prefers its own by {margin:.2g} nats"
        )


def _margin(top: Mapping[str, float], ours: int, theirs: int) -> float:
    """By how much the engine prefers its token, in nats; infinite when the other is not among its best."""
    likely = top.get(f"token_id:{theirs}")
    return float("inf") if likely is None else float(top[f"token_id:{ours}"]) - float(likely)


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """Where two sequences first differ; the length of the shorter where it starts the longer."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
