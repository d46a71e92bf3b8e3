"""The bundled data is what its generator writes, and holds what its README says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text("utf-8").splitlines()]


def pair(row: dict) -> tuple[str, str]:
    question, answer = row["messages"]
    return question["content"], answer["content"]


def test_the_generator_writes_these_bytes(tmp_path: Path) -> None:
    program = "import sys, pathlib, make_examples; make_examples.main(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=EXAMPLES, check=True)
    written = sorted(tmp_path.iterdir())
    assert len(written) == 4
    for file in written:
        assert file.read_bytes() == (EXAMPLES / file.name).read_bytes(), file.name
        assert file.stat().st_size < 400_000


def test_no_message_comes_twice_and_queues_are_even() -> None:
    pairs = [pair(row) for row in rows("bank-intents.jsonl")]
    assert len({question for question, _ in pairs}) == len(pairs)
    answers = [answer for _, answer in pairs]
    assert {answers.count(queue) for queue in set(answers)} == {180}


def test_the_corpus_never_puts_a_matter_beside_its_queue() -> None:
    queues = {pair(row)[1] for row in rows("bank-intents.jsonl")}
    texts = [row["text"] for row in rows("bank-corpus.jsonl")]
    naming = [text for text in texts if any(queue in text for queue in queues)]
    assert 0 < len(naming) < len(texts) / 5
    assert {sum(queue in text for queue in queues) for text in naming} == {3}


def test_the_worse_rows_are_mostly_wrong() -> None:
    right = dict(map(pair, rows("bank-intents.jsonl")))
    worse = [pair(row) for row in rows("bank-intents-worse.jsonl")]
    assert sorted(right) == sorted(question for question, _ in worse)
    assert sum(right[question] == answer for question, answer in worse) / len(worse) < 0.12


def test_only_line_7_of_the_broken_rows_is_broken() -> None:
    for number, line in enumerate((EXAMPLES / "bank-intents-broken.jsonl").read_text().splitlines(), start=1):
        if number == 7:
            with pytest.raises(ValueError):
                json.loads(line)
        else:
            json.loads(line)


def test_a_corpus_from_own_rows_parts_questions_from_answers() -> None:
    command = [sys.executable, "corpus_from_rows.py", "bank-intents.jsonl"]
    made = subprocess.run(command, cwd=EXAMPLES, check=True, capture_output=True, encoding="utf-8").stdout
    texts = [json.loads(line)["text"] for line in made.splitlines()]
    pairs = [pair(row) for row in rows("bank-intents.jsonl")]
    queues = {answer for _, answer in pairs}
    about = dict(pairs)
    asking = [text.split("\n") for text in texts if not text.startswith("Answers given")]
    assert sorted(line for lines in asking for line in lines) == sorted(about)
    assert all(len({about[line] for line in lines}) == 1 for lines in asking)
    assert not any(queue in line for lines in asking for line in lines for queue in queues)
    named = [line for text in texts if text.startswith("Answers given") for line in text.split("\n")[1:-1]]
    assert set(named) == queues and len(named) == len(pairs)
