"""Rows that a model learned from through the one that graded it, which is settled when the job is submitted."""

import pytest

from kit.rpc.errors import Invalid
from sluice.dataset import v1 as dataset
from tests.pipeline import ENDPOINT, short, until


def test_who_is_graded_by_a_model_saw_its_rows_through_it(running):
    client, few = running.client, {"gate_policy": "baseline", "max_steps": 2}
    seen, asked = (running.upload(name, "sft", 100) for name in ("seen-by-judge", "asked"))
    judge = running.follow(running.train(dataset=seen, model="judge", endpoint="judge", **few)).version.name
    wanted = {"dataset": asked, "task_type": "grpo", "rewards": "judge:judge", **few}
    graded = running.train(model="graded", endpoint="graded", **wanted)
    assert client.jobs.get(graded).spec.grpo.rewards[0].judge.model_version == judge
    assert dict(running.version_of(graded).lineage.read_model_versions) == {"judge-judge": judge}

    def use():
        found = client.records.models("seen-by-judge")
        return next((each for each in found if short(each.model_version) == "graded@1"), None)

    known = until(use, "what the dataset service hears of the model")
    assert known and (known.seen, known.source, known.dataset_version) == (dataset.SEEN_TAUGHT, judge, seen)
    with pytest.raises(Invalid, match=f"asks the endpoint `{ENDPOINT}`, which the model being trained is for"):
        running.train(task_type="grpo", rewards=f"judge:{ENDPOINT}", **few)
    running.follow(graded)
