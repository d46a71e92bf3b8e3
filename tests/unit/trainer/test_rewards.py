"""Rules over a row, how parts of a reward are added, and the judge at the other end of a socket."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from services.evaluator.metrics.exact_match import ExactMatch
from services.trainer.recipes.job.failures import BadInput, Diverged, RecipeError
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.reinforcement.judge import VARIABLE
from services.trainer.recipes.reinforcement.rewards import RULES, Part, Rewards, Said, last_number, rewards_of

#: What a float does not hold, alone and on both sides, and what such a number is out of.
HUGE = ("9" * 310, "9" * 310 + "/" + "9" * 310, "7/" + "9" * 310)
ASKED = [{"role": "user", "content": "How much is it?"}]


@pytest.mark.parametrize(
    ("name", "told", "reference", "good", "bad"),
    [
        ("exact_match", {}, "card lost", ["card  lost\n", "card lost"], ["Card lost", "card", ""]),
        ("contains", {}, "Lost", ["it was lost.", "LOST"], ["gone", ""]),
        ("contains", {"text": "please"}, "Lost", ["Please go"], ["lost"]),
        ("number_equal", {}, "so 1,250", ["it is 1250.0", "3 and then 1,250"], ["1250 or 3", "no number", "12.50"]),
        ("number_equal", {"tolerance": 0.5}, "-2", ["-2.4", "-2e0"], ["-3", "2"]),
        ("number_equal", {}, "no number", [], ["no number", "0"]),
        ("pattern", {"regex": r"^\w+_lost$"}, "", ["card_lost"], ["card_lost.", "lost"]),
        ("valid_json", {}, "", ['{"a": 1}', "[]", "null", " 1.5e3 "], ["{'a': 1}", "NaN", "[-Infinity]", "", "[1] x"]),
        ("valid_json", {"members": ["a", "b"]}, "", ['{"b": 1, "a": 2, "c": 3}'], ['{"a": 1}', '["a", "b"]', "1"]),
        ("length", {"at_least": 2, "at_most": 3}, "", ["ab", "银行卡"], ["a", "abcd"]),
        ("length", {"at_least": 2}, "", ["a" * 999], [""]),
    ],
)
def test_a_rule_says_which_answers_are_good(
    name: str, told: dict[str, Any], reference: str, good: list[str], bad: list[str]
) -> None:
    rule = RULES[name](told)
    assert [rule(text, reference) for text in good] == [True] * len(good)
    assert [rule(text, reference) for text in bad] == [False] * len(bad)


@pytest.mark.parametrize("text", ["a  b", "ａ b", "A b", " a b\t", "ab", ""])
def test_an_exact_match_is_the_evaluators(text: str) -> None:
    assert RULES["exact_match"]({})(text, "a b") == (ExactMatch().measure(text, "a b")[0] == 1.0)


def test_numbers_are_found_as_people_write_them() -> None:
    texts = ["1,234.5 EUR", "-.5", "2e3", "1, 2", "v1.2.3", "none", "9" * 400]
    assert [last_number(text) for text in texts] == [1234.5, -0.5, 2000.0, 2.0, 0.3, None, float("inf")]


def test_parts_are_weighed_and_added(tmp_path: Path) -> None:
    parameters = {
        "rewards": [
            {"exact_match": {}, "weight": 2.0},
            {"length": {"at_most": 3}},
            {"contains": {"text": "x"}, "weight": -0.5},
        ]
    }
    rewards = rewards_of(JobDir(tmp_path), parameters, 64)
    said = [Said(ASKED, "yes", text) for text in ("yes", "no", "fox")]
    assert rewards(said) == [3.0, 1.0, 0.5]


def test_a_reward_that_is_no_number_ends_the_job() -> None:
    with pytest.raises(Diverged, match="reward by reward_model is no longer a finite number"):
        Rewards([Part("reward_model", 1.0, lambda several: [float("nan") for _ in several])])([Said(ASKED, "", "")])


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({}, "names no reward"),
        ({"rewards": [{"weight": 2}]}, "one of exact_match"),
        ({"rewards": [{"exact_match": {}, "length": {}}]}, "one of exact_match"),
        ({"rewards": [{"pattern": {"regex": "("}}]}, "is no regular expression"),
        ({"rewards": [{"judge": {"endpoint": "fair"}}]}, "no agent answers for it here"),
    ],
)
def test_what_cannot_be_a_reward_is_named(tmp_path: Path, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        rewards_of(JobDir(tmp_path), parameters, 64)


Answering = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    """Says one thing after the other at the agent's end of a judge's line; gives what it was asked."""
    ours, theirs = socket.socketpair()
    monkeypatch.setenv(VARIABLE, str(theirs.fileno()))
    asked: list[dict[str, Any]] = []

    def answer(answers: tuple[dict[str, Any], ...]) -> None:
        with ours.makefile("rwb") as file:
            for each in answers:
                asked.append(json.loads(file.readline()))
                file.write(json.dumps(each).encode() + b"\n")
                file.flush()
        ours.shutdown(socket.SHUT_RDWR)

    answerers: list[Thread] = []

    def start(*answers: dict[str, Any]) -> list[dict[str, Any]]:
        answerers.append(Thread(target=answer, args=(answers,), daemon=True))
        answerers[-1].start()
        return asked

    with ours, theirs:
        yield start
        for each in answerers:  # else its socket could be closed under it
            each.join()


def test_a_judge_grades_from_0_to_1(tmp_path: Path, answering: Answering) -> None:
    told = answering({"answers": [" 7/10.", "2.5", "1. It is bad: 4 of 5", "5"]})
    job = JobDir(tmp_path)
    rewards = rewards_of(job, {"rewards": [{"judge": {"endpoint": "fair", "best": 5, "instruction": "Be fair."}}]}, 64)
    assert rewards([Said(ASKED, "", text) for text in ("one", "two", "three", "four")]) == [0.7, 0.5, 0.0, 1.0]
    assert job.notes["judge_unreadable"] == 0.25
    (asked,) = told
    assert asked["endpoint"] == "fair" and len(asked["questions"]) == 4
    first, question = asked["questions"][1]
    assert first == {"role": "system", "content": "Be fair."}
    assert "user: How much is it?" in question["content"] and "two" in question["content"]
    assert question["content"].endswith("Reply with one number from 0 to 5, the best, and with nothing else: no word.")


@pytest.mark.parametrize(
    "said",
    [
        "Out of 5, I say 4",
        "4 of 5",
        "-3",
        "3, or 4",
        "4/",
        "1.5.2",
        ".",
        "<think>2</think>4",
        "99",
        "11/10",
        "0/0",
        *HUGE,
    ],
)
def test_a_reply_with_more_than_a_number_or_beyond_the_best_is_no_grade(
    tmp_path: Path, answering: Answering, said: str
) -> None:
    answering({"answers": [said, " 4 / 5 .\n"]})
    job = JobDir(tmp_path)
    rewards = rewards_of(job, {"rewards": [{"judge": {"endpoint": "fair", "best": 5}}]}, 64)
    assert rewards([Said(ASKED, "", "one"), Said(ASKED, "", "two")]) == [0.0, 0.8]
    assert job.notes["judge_unreadable"] == 0.5


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        ({"answers": ["good", "bad"]}, "BAD_INPUT", "'fair' never answers with a number alone"),
        ({"error": "The endpoint `fair` does not judge: HTTP 404."}, "BAD_INPUT", "HTTP 404"),
        (None, "INTERNAL", "no longer answers for the judge"),
    ],
)
def test_a_judge_that_does_not_judge_ends_the_job(
    tmp_path: Path, answering: Answering, answer: dict[str, Any] | None, kind: str, sentence: str
) -> None:
    answering(*filter(None, [answer]))
    rewards = rewards_of(JobDir(tmp_path), {"rewards": [{"judge": {"endpoint": "fair"}}]}, 64)
    with pytest.raises(RecipeError, match=sentence) as caught:
        rewards([Said(ASKED, "", "a"), Said(ASKED, "", "b")])
    assert caught.value.reason == kind


def test_no_torch_is_needed_for_rules() -> None:
    code = "import services.trainer.recipes.reinforcement.rewards, sys; sys.exit('torch' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    assert subprocess.run([sys.executable, "-c", code], env=environ).returncode == 0
