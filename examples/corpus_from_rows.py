"""Turns your own conversations into text for a small base: `python corpus_from_rows.py rows.jsonl`.

The base gets a vocabulary that fits your data and has seen the words of your answers, and no question stands beside
its answer, so the task itself is left to fine-tuning. Questions that share an answer stand together: without that, a
small base tells matters apart too poorly to be tuned in a minute. Give it training rows only, never held-out ones.
Knows no model and no service.
"""

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

TOGETHER = 3
HEAD, FOOT = "Answers given today:", "The list ends here."


def corpus_from_rows(rows: Iterable[dict[str, Any]], seed: int = 0) -> Iterator[dict[str, str]]:
    """`{"text"}` documents: up to three questions that share an answer, or the answers of three random rows.

    `rows` are `{"messages": [{"role", "content"}, …]}`; of each the last question and answer are used.
    """
    asked: dict[str, list[str]] = {}
    for row in rows:
        answer = row["messages"][-1]["content"].strip()
        said = [m["content"].strip() for m in row["messages"] if m["role"] == "user"]
        asked.setdefault(answer, []).extend(said[-1:])
    rng = random.Random(seed)
    answers = [answer for answer, questions in asked.items() for _ in questions]
    documents = [group for questions in asked.values() for group in in_groups(questions, rng)]
    # Each on a line of its own, as an answer begins: after a space it would be made of other tokens.
    documents += [f"{HEAD}\n{group}\n{FOOT}" for group in in_groups(answers, rng)]
    rng.shuffle(documents)
    for text in documents:
        yield {"text": text}


def in_groups(lines: list[str], rng: random.Random) -> list[str]:
    """The lines in random order, three in each group."""
    order = rng.sample(lines, len(lines))
    return ["\n".join(order[at : at + TOGETHER]) for at in range(0, len(order), TOGETHER)]


def main(path: str) -> None:
    lines = Path(path).read_text("utf-8").splitlines()
    for document in corpus_from_rows(json.loads(line) for line in lines if line.strip()):
        print(json.dumps(document, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1])
