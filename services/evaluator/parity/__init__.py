"""Holds the engine to what the recipe's own weights answered; it imports no recipe.

The recipe leaves JSON lines, each a probe of some `kind`: none for tokens (``parity/tokens.py``), else `vector`,
`logits`, `score` or `tokens` (``parity/values.py``).
"""

from __future__ import annotations

import json

from services.evaluator.asking import Engine, NoAnswer
from services.evaluator.parity import tokens, values
from services.evaluator.parity.found import Found
from sluice.evaluator import v1 as evaluator

__all__ = ["compare"]


async def compare(content: bytes, engine: Engine, model: str, tolerance: float) -> evaluator.Parity:
    """Compares every probe of a ``parity.jsonl`` with what ``model`` gives.

    It passes when all prompts are rendered alike, greedy answers differ only where the engine held both tokens for
    equally likely, half of all tokens could be compared, log-probabilities differ by at most ``tolerance`` nats, and
    values by as much as their kind of number allows. Raises Unavailable.
    """
    found = Found(tolerance)
    for number, line in enumerate(filter(bytes.strip, content.split(b"\n")), start=1):
        wanted = json.loads(line)
        found.parity.prompts += 1
        kind = wanted.get("kind")
        probe = f"prompt {number}" if kind is None else f"probe {number} ({kind})"
        comparing = tokens if kind is None else values
        try:
            await comparing.compare(found, probe, wanted, engine, model)
        except NoAnswer as error:
            found.differs(probe, str(error))
        except (KeyError, IndexError, TypeError, ValueError):
            found.differs(probe, comparing.NOTHING)
    tokens.conclude(found)
    found.parity.passed = bool(found.parity.prompts) and not found.parity.first_difference
    return found.parity
