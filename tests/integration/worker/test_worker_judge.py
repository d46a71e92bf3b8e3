"""A recipe, which has no network, has answers graded at an endpoint: its agent asks, at the HTTP port."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from worker_parts import ENDPOINT, PROJECT, Ask, Gateway, answer

from services.trainer.agent import recipe
from services.trainer.agent.judge import Judges
from services.trainer.folders import AttemptFolder
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.reinforcement.judge import VARIABLE, Judge
from sluice.trainer import v1 as trainer

ASKED = [([{"role": "user", "content": f"Question {number}?"}], "An answer.") for number in range(20)]


async def grading(ask: Ask, writer: asyncio.StreamWriter) -> None:
    """Answers as an engine does whose model says a grade."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "2"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    answer(writer, {"id": "c", "created": 1, "model": ask.body["model"], "choices": [choice], "usage": usage})


def judges(gateway: Gateway, endpoint: str, version: str = "") -> Judges:
    spec = trainer.TrainingJobSpec()
    spec.grpo.rewards.add().judge.MergeFrom(trainer.Reward.Judge(endpoint=endpoint, model_version=version))
    job = trainer.TrainingJob(name=f"{PROJECT}/trainingJobs/1", spec=spec)
    return Judges(job, lambda: gateway.url.removeprefix("http://"), lambda: "trainer.payload.sign")


async def test_an_endpoint_of_the_project_grades(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.one.behavior = grading
    async with judges(gateway, "assistant").line() as line:
        monkeypatch.setenv(VARIABLE, str(line))
        judge = Judge(JobDir(tmp_path), "assistant")
        assert await asyncio.to_thread(judge.grades, ASKED) == [0.2] * 20
        assert await asyncio.to_thread(judge.grades, ASKED[:1]) == [0.2]
        with pytest.raises(BadInput, match="asks an endpoint that the spec does not name"):
            await asyncio.to_thread(Judge(JobDir(tmp_path), "other").grades, ASKED)
    asked = gateway.one.asks[0].body
    assert asked["temperature"] == 0 and "An answer." in asked["messages"][1]["content"]
    assert {each.endpoint for each in gateway.worker.figures.drain()} == {f"{ENDPOINT}:judge"}


async def test_the_version_that_was_found_grades_whatever_else_is_let_in(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.one.behavior = grading
    gateway.route(candidate_percent=99)
    async with judges(gateway, "assistant", f"{PROJECT}/models/m/versions/2").line() as line:
        monkeypatch.setenv(VARIABLE, str(line))
        judge = Judge(JobDir(tmp_path), "assistant")
        assert await asyncio.to_thread(judge.grades, ASKED) == [0.2] * 20
        assert len(gateway.one.asks) == 20 and not gateway.two.asks
        gateway.route(candidate_percent=100, stable=False)  # promoted
        with pytest.raises(BadInput, match="`m@2`, which grades this job, serves there no more"):
            await asyncio.to_thread(judge.grades, ASKED)
        assert not gateway.two.asks


async def test_an_endpoint_that_is_not_there_is_named(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with judges(gateway, "nobody").line() as line:
        monkeypatch.setenv(VARIABLE, str(line))
        with pytest.raises(BadInput, match="endpoint `nobody` does not judge: HTTP 404"):
            await asyncio.to_thread(Judge(JobDir(tmp_path), "nobody").grades, ASKED)


async def test_a_job_without_a_judge_has_no_line() -> None:
    spec = trainer.TrainingJobSpec()
    spec.sft.SetInParent()
    job = trainer.TrainingJob(name=f"{PROJECT}/trainingJobs/1", spec=spec)
    async with Judges(job, str, str).line() as line:
        assert line is None


ASKS = """
import sys
from pathlib import Path
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.reinforcement.judge import Judge

asked = [([{"role": "user", "content": "Well?"}], "An answer.")]
Path(sys.argv[1], "grades").write_text(str(Judge(JobDir(Path(sys.argv[1])), "assistant").grades(asked)))
"""


async def test_the_process_of_a_recipe_reaches_its_judge(gateway: Gateway, tmp_path: Path) -> None:
    gateway.one.behavior = grading
    folder = AttemptFolder(tmp_path / "attempt")
    folder.create()
    with (tmp_path / "lock").open("w") as lock:
        async with judges(gateway, "assistant").line() as line:
            process = await recipe.start((sys.executable, "-c", ASKS), folder, os.environ, lock.fileno(), line)
            assert await process.wait() == 0, folder.log.read_text()
    assert (folder.path / "grades").read_text() == "[0.2]"
    assert folder.log.read_text() == ""
