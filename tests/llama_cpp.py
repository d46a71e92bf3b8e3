"""The real llama.cpp, as prebuilt for Node.js: opens GGUF files and says what it makes of texts."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.node_client import RUN_S, installed
from tests.suite import ROOT


@dataclass(frozen=True)
class Made:
    """What it makes of a text: its tokens, the logits after each of them, and a greedy answer without its end."""

    tokens: list[int]
    logits: list[list[float]]  # (tokens, vocabulary)
    answer: list[int]


def install(otherwise: Path) -> Path:
    """The script beside its packages; raises NotHere where there is no Node.js, and InstallFailed."""
    return installed(ROOT / "tests" / "recipes" / "llama_cpp", "llama-cpp", otherwise) / "ask.mjs"


def ask(script: Path, files: Mapping[Path, Sequence[str]], tokens: int) -> dict[Path, list[Made]]:
    """What llama.cpp makes of the texts for each file with the model in it; an answer has at most so many tokens."""
    asked = json.dumps({"files": {str(file): texts for file, texts in files.items()}, "tokens": tokens})
    done = subprocess.run(
        ["node", str(script)], input=asked, capture_output=True, text=True, check=False, timeout=RUN_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {Path(file): [Made(**each) for each in made] for file, made in json.loads(done.stdout).items()}
