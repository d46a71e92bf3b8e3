"""Which rows of a split are asked; what they ask is not known here."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import AsyncIterator, Callable, Collection

from services.evaluator.metrics import Kind
from services.evaluator.questions.preferences import prompt_of
from services.evaluator.questions.question import Ask, Question

#: What a row is chosen by where it is not its bytes; here, so that answers to one prompt stay together.
TOGETHER: dict[str, Callable[[bytes], bytes]] = {
    "feedback": lambda line: prompt_of(json.loads(line)).encode("utf-8", "surrogatepass"),
}


async def choose(
    pieces: AsyncIterator[bytes], row_schema: str, ask: Ask, kinds: Collection[Kind], max_rows: int, max_tokens: int
) -> list[Question]:
    """The questions of a split of these kinds, in order; of more than ``max_rows`` rows those with the lowest SHA-256.

    ``pieces`` are whole JSON lines. So the same rows are asked whatever else the split holds before or after them.
    """
    chosen_by, row, kept = TOGETHER.get(row_schema, bytes), 0, list[tuple[int, int, bytes]]()
    async for piece in pieces:
        for line in piece.splitlines():
            row += 1
            entry = (-int.from_bytes(hashlib.sha256(chosen_by(line)).digest()), -row, line)
            if not max_rows or len(kept) < max_rows:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
    rows = ((number, json.loads(line)) for number, line in sorted((-number, line) for _, number, line in kept))
    return [question for question in ask(rows, max_tokens) if question.kind in kinds]
