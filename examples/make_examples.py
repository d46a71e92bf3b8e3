"""Writes the example data of this folder, the same bytes every time; knows no model and no service."""

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bank_phrases import (
    CLOSERS,
    CLOSERS_ZH,
    DAYS,
    DAYS_ZH,
    NAMES,
    OPENERS,
    OPENERS_ZH,
    PLACES,
    PLACES_ZH,
    QUEUES,
    SHOPS,
)

SEED = 20261121
ROWS_PER_QUEUE = 180
CHINESE_SHARE = 0.25
DOCUMENTS = 3000


def fill(template: str, rng: random.Random, chinese: bool) -> str:
    """Put a name, place, day, amount … wherever the template asks for one."""
    return template.format(
        name=rng.choice(NAMES),
        place=rng.choice(PLACES_ZH if chinese else PLACES),
        day=rng.choice(DAYS_ZH if chinese else DAYS),
        shop=rng.choice(SHOPS),
        amount=rng.randrange(20, 2000),
        n=rng.randrange(2, 30),
        hour=rng.randrange(1, 12),
        id=rng.randrange(10000, 99999),
    )


def message(queue: str, rng: random.Random) -> str:
    """One customer message for `queue`: a greeting, the matter, a closing; sometimes written carelessly."""
    english, chinese = QUEUES[queue]
    if rng.random() < CHINESE_SHARE:
        parts = [rng.choice(OPENERS_ZH), rng.choice(chinese), rng.choice(CLOSERS_ZH)]
        return fill("".join(parts), rng, chinese=True)
    text = fill(rng.choice(OPENERS) + rng.choice(english) + rng.choice(CLOSERS), rng, chinese=False)
    careless = rng.random()
    if careless < 0.15:
        return text.lower()
    return text[0].upper() + text[1:] if careless < 0.7 else text


def intents(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Rows of messages and the queue each belongs to; no message twice."""
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    for queue in QUEUES:
        wanted = len(rows) + ROWS_PER_QUEUE
        while len(rows) < wanted:
            text = message(queue, rng)
            if text not in seen:
                seen.add(text)
                rows.append(row(text, queue))
    rng.shuffle(rows)
    yield from rows


def row(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def mislabeled(rows: list[dict[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """The same messages with the answers dealt out at random: a gate must refuse what they make."""
    answers = [r["messages"][1]["content"] for r in rows]
    rng.shuffle(answers)
    for r, answer in zip(rows, answers, strict=True):
        yield row(r["messages"][0]["content"], answer)


def corpus(rng: random.Random) -> Iterator[dict[str, str]]:
    """Plain text for a base: different sentences of one matter, and, apart from them, sentences that name queues.

    A base of it hears what a sentence is about. No document holds both a matter and its queue, so nothing here
    teaches the task.
    """
    for _ in range(DOCUMENTS):
        kind = rng.random()
        english, chinese = rng.choice(list(QUEUES.values()))
        if kind < 0.15:
            text = rng.choice(NOTICES).format(*rng.sample(list(QUEUES), 3))
        elif kind < 0.45:
            text = fill(rng.choice(OPENERS_ZH) + "".join(rng.sample(chinese, 3)), rng, chinese=True)
        else:
            text = fill(" ".join(rng.sample(english, 2)), rng, chinese=False)
        yield {"text": text}


NOTICES = [
    "The queues {0}, {1} and {2} are open on weekdays.",
    "Today's report counts {0}, then {1}, then {2}.",
    "Busy queues today:\n{0}\n{1}\n{2}\nAll others are quiet.",
    "Assigned to our clerks:\n{0}\n{1}\n{2}\nThe list ends here.",
    "队列：\n{0}\n{1}\n{2}\n已更新。",
]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def main(folder: Path = Path(__file__).parent) -> None:
    rows = list(intents(random.Random(SEED)))
    write(folder / "bank-intents.jsonl", rows)
    write(folder / "bank-intents-worse.jsonl", mislabeled(rows, random.Random(SEED + 1)))
    write(folder / "bank-corpus.jsonl", corpus(random.Random(SEED + 2)))
    broken = [json.dumps(r, ensure_ascii=False) for r in rows[:12]]
    broken[6] = broken[6][: len(broken[6]) // 2]  # line 7 stops in the middle
    (folder / "bank-intents-broken.jsonl").write_text("\n".join(broken) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
