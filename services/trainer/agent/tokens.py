"""Lends a job the tokens of one before it, and keeps those that it made; it knows no token."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from services.trainer.agent.staging import Sources, Staged
from services.trainer.folders import AttemptFolder
from services.trainer.token_cache import digest_now, token_key
from sluice.trainer import v1 as trainer

#: What decides which tokens a row becomes.
CODE = (
    *("data/rows.py", "data/conversations.py", "data/packing.py", "data/tokens.py", "data/pairs.py"),
    *("sft.py", "preference.py", "kto.py", "reward.py"),
)
PACKAGES = ("transformers", "tokenizers", "jinja2", "sentencepiece", "tiktoken")


async def lend(sources: Sources, job: trainer.TrainingJob, staged: Staged, folder: AttemptFolder) -> str | None:
    """Puts them into `in/tokens/` where they are there; the key under which `keep` will take those that are made."""
    recipe = str(job.spec.WhichOneof("recipe"))
    key = token_key(recipe, staged.rows, folder.path / "in" / "base", code_digest())
    if key is None or sources.tokens is None:
        return None
    await sources.tokens.fetch(key, folder.path / "in" / "tokens")
    return key


async def keep(
    sources: Sources, job: trainer.TrainingJob, staged: Staged, folder: AttemptFolder, key: str | None
) -> None:
    """Takes what the recipe left in `tokens/`."""
    if key is not None and sources.tokens is not None:
        now = partial(digest_now, sources.datasets)
        await sources.tokens.keep(key, job.spec.dataset_version, staged.rows, folder.path / "tokens", now)


@cache
def code_digest() -> str:
    """Of the code that makes tokens, ours and the libraries'."""
    folder = Path(__file__).parent.parent / "recipes"
    told = [*((folder / name).read_text("utf-8") for name in CODE), *map(_version, PACKAGES)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _version(package: str) -> str:
    """Empty where it is not installed, as not every tokenizer needs each of them."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
