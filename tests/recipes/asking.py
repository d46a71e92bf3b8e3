"""Questions with one right answer each, and a base that has heard them all but mostly answers wrong."""

from pathlib import Path
from random import Random
from typing import Any

from tests.recipes.jobs import LABELS

COLORS = ("red", "green", "blue")


def asks(start: int = 0, count: int = 48, right: float = 1.0) -> list[dict[str, Any]]:
    """Which queue a color belongs to; the answer is right in so many rows, and else another one."""
    chance, rows = Random(start), []
    for i in range(start, start + count):
        shift = 0 if chance.random() < right else 1 + chance.randrange(2)
        asked = {"role": "user", "content": f"{i} {COLORS[i % 3]}"}
        rows.append({"messages": [asked, {"role": "assistant", "content": LABELS[(i + shift) % 3]}]})
    return rows


def undecided(blank: Path, folder: Path, right: float = 0.4, steps: int = 60, rate: float = 0.01) -> Path:
    """The base `blank` taught by rows of which only a part is right."""
    import torch

    from services.trainer.recipes.data.conversations import tokenize
    from services.trainer.recipes.models.base_model import load_base

    tokenizer, model = load_base(blank)
    taught = [tokenize(tokenizer, row["messages"]) for row in asks(count=192, right=right)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for step in range(steps):
        rows = [taught[(step * 32 + place) % len(taught)] for place in range(32)]
        longest = max(len(row.input_ids) for row in rows)
        ids = torch.tensor([row.input_ids + [0] * (longest - len(row.input_ids)) for row in rows])
        labels = torch.tensor([row.labels + [-100] * (longest - len(row.labels)) for row in rows])
        model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
