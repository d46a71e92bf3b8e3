"""Turns your own conversations into text for a small base: `python corpus_from_rows.py rows.jsonl`.

The base gets a vocabulary that fits your data and has seen the words of your answers, but no question stands
beside its answer, so the task itself is left to fine-tuning. Give it training rows only, never held-out ones.
Knows no model and no service.
"""

import json
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ANSWERS_TOGETHER = 3


def corpus_from_rows(rows: Iterable[dict[str, Any]], seed: int = 0) -> Iterator[dict[str, str]]:
    """`{"text"}` documents: every question by itself, and the answers of three random rows in one.

    `rows` are `{"messages": [{"role", "content"}, …]}`.
    """
    said: dict[bool, list[str]] = {True: [], False: []}
    for row in rows:
        for message in row["messages"]:
            said[message["role"] == "assistant"].append(message["content"].strip())
    rng = random.Random(seed)
    answers = rng.sample(said[True], len(said[True]))
    documents = [text for text in said[False] if text]
    for at in range(0, len(answers), ANSWERS_TOGETHER):
        documents.append("- " + "\n- ".join(answers[at : at + ANSWERS_TOGETHER]))
    rng.shuffle(documents)
    for text in documents:
        yield {"text": text}


def main(path: str) -> None:
    lines = Path(path).read_text("utf-8").splitlines()
    for document in corpus_from_rows(json.loads(line) for line in lines if line.strip()):
        print(json.dumps(document, ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1])
