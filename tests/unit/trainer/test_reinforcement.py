"""What is refused of jobs that learn from rewards, what of them the agent may ask, and how they are written."""

from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from training_jobs import sft_spec

import tasks
from kit.auth import Principal
from kit.rpc.call import Call, acting
from kit.rpc.errors import Invalid
from services.trainer.agent.judge import Judges, judges_of
from services.trainer.agent.staging import recipe_spec
from services.trainer.inputs import Inputs
from services.trainer.refusals import Asked, refusals
from sluice.client.specs import training_spec
from sluice.dataset import v1 as dataset
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

RIGHT = {"rewards": [{"exact_match": {}}]}


def refused(recipe: str, own: dict[str, Any], **shared: Any) -> list[str]:
    """What is said of a spec at submission, and of the same fields, flat, in the recipe's process."""
    at_submission, inside = ({recipe: own, **shared}, {**own, **shared})
    found = [[str(each) for each in refusals(Asked.of(fields, recipe, "cpu"))] for fields in (at_submission, inside)]
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("recipe", ["ppo", "grpo", "rloo"])
def test_what_can_be_done_is_not_refused(recipe: str) -> None:
    assert refused(recipe, RIGHT) == []
    assert refused(recipe, {"reward_model_version": "projects/p/models/rm/versions/1", "reward_model_weight": 0}) == []
    assert refused(recipe, {**RIGHT, "group_size": 0}, optimization={"batch_size": 0}, lora={"rank": 8}) == []
    assert (
        refused(recipe, {**RIGHT, "group_size": 6}, optimization={"batch_size": 3, "gradient_accumulation_steps": 4})
        == []
    )


@pytest.mark.parametrize(
    ("recipe", "own", "shared", "sentence"),
    [
        ("ppo", {}, {}, "ppo.rewards is empty, and there is no reward_model_version either; name at least one"),
        ("grpo", {"rewards": []}, {}, "grpo.rewards is empty"),
        ("rloo", {**RIGHT, "reward_model_weight": 2.0}, {}, "rloo.reward_model_weight is given, but no reward_model_"),
        ("grpo", {**RIGHT, "group_size": 1}, {}, "grpo.group_size is 1, and an answer counts by how it compares"),
        (
            "grpo",
            {**RIGHT, "group_size": 6},
            {},
            "grpo.group_size is 6, which does not divide the 32 answers of a step",
        ),
        (
            "rloo",
            RIGHT,
            {"optimization": {"batch_size": 6}},
            "rloo.group_size is 4, which does not divide the 6 answers",
        ),
        (
            "ppo",
            {"rewards": [{"exact_match": {}}, {"pattern": {"regex": "a{2,1}("}}]},
            {},
            "ppo.rewards[1].pattern.regex is no regular expression",
        ),
        ("ppo", {"rewards": [{"length": {"at_least": 9, "at_most": 8}}]}, {}, "ppo.rewards[0].length.at_most is below"),
        ("ppo", {"rewards": [{"length": {"at_least": 0}}]}, {}, "ppo.rewards[0].length has neither at_least nor at_"),
        ("grpo", RIGHT, {"lora": {"rank": 8, "dropout": 0.1}}, "lora.dropout is given, but grpo compares the prob"),
        ("ppo", RIGHT, {"lora": {"quantization": "nf4"}}, "lora.quantization is nf4, but ppo holds its base in floats"),
        ("rloo", RIGHT, {"lora": {"variant": "pissa"}}, "lora.variant is pissa, which takes a part out of the base's"),
        ("grpo", RIGHT, {"adalora": {}}, "adalora is asked for, but peft adds its regularizer"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_field_and_the_fix(
    recipe: str, own: dict[str, Any], shared: dict[str, Any], sentence: str
) -> None:
    (found,) = refused(recipe, own, **shared)
    assert found.startswith(sentence) and "; " in found


def test_rewards_are_written_as_words_or_as_fields() -> None:
    spec = training_spec(
        "projects/p",
        dataset="asked@1",
        model="bot",
        task_type="grpo",
        base="base@1",
        rewards="exact_match, length:80*0.5,judge:fair",
        reward_model_version="taste@2",
        group_size=4,
        scale_rewards=False,
    )
    assert spec.grpo.reward_model_version == "projects/p/models/taste/versions/2"
    assert judges_of(spec) == {"fair"}
    job = trainer.TrainingJob(name="projects/p/trainingJobs/1", spec=spec)
    told = recipe_spec(job, 1)["parameters"]
    assert told["rewards"] == [
        {"exact_match": {}},
        {"weight": 0.5, "length": {"at_least": 0, "at_most": 80}},
        {"judge": {"endpoint": "fair", "instruction": "", "best": 0.0}},
    ]
    assert told["group_size"] == 4 and told["scale_rewards"] is False and "beta" not in told
    fields = [{"contains": {"text": "a, b"}, "weight": -1}, trainer.Reward(valid_json={"members": ["a"]})]
    other = training_spec("projects/p", dataset="d", model="bot", task_type="ppo", rewards=fields)
    said = MessageToDict(other.ppo, preserving_proto_field_name=True)["rewards"]
    assert said == [{"weight": -1.0, "contains": {"text": "a, b"}}, {"valid_json": {"members": ["a"]}}]
    assert judges_of(other) == judges_of(sft_spec()) == set()


async def test_each_job_is_a_session_of_its_own_where_it_asks_a_judge() -> None:
    sessions = []

    def answer(request: httpx.Request) -> httpx.Response:
        sessions.append(request.headers["x-sluice-session"])
        return httpx.Response(200, json={"choices": [{"message": {"content": "7"}}]})

    spec = trainer.TrainingJobSpec()
    spec.grpo.rewards.add().judge.endpoint = "fair"
    asked = {"endpoint": "fair", "questions": [[], []]}
    async with httpx.AsyncClient(base_url="http://gateway", transport=httpx.MockTransport(answer)) as client:
        for job in ("one", "two"):
            judges = Judges(trainer.TrainingJob(name=f"projects/p/trainingJobs/{job}", spec=spec), str, str)
            assert await judges._answers(asked, client) == {"answers": ["7", "7"]}
    assert sessions == ["one", "one", "two", "two"]


@pytest.mark.parametrize(
    ("rewards", "sentence"),
    [
        ("fame", "there is no reward `fame`; take one of exact_match, contains"),
        ("exact_match:x", "the reward `exact_match` takes no setting in words; write it in a file"),
        ("length:80*much", "has the weight `much`; write a number, as in `length\\*2`"),
        ("length:long", "a reward cannot be read"),
        ([{"fame": {}}], "a reward cannot be read: .*fame"),
    ],
)
def test_what_is_no_reward_is_named(rewards: object, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        training_spec("projects/p", dataset="d", model="bot", task_type="rloo", rewards=rewards)


class Peers:
    """Rows for `sft`; every version serves what its model is called."""

    async def GetTaskType(self, request, timeout):
        name = request.name.rpartition("/")[2]
        found = {"name": f"taskTypes/{name}", "state": registry.TASK_TYPE_STATE_APPROVED, **tasks.task_types()[name]}
        return registry.GetTaskTypeResponse(task_type=registry.TaskType(**found))

    async def GetDatasetVersion(self, request, timeout):
        version = dataset.DatasetVersion(name=request.name, task_type="sft", split_rows={"train": 3})
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def GetModelVersion(self, request, timeout):
        found = registry.ModelVersion(
            name=request.name,
            artifact=types.Artifact(kind=types.ARTIFACT_KIND_FULL),
            interface=request.name.split("/")[3],
        )
        return registry.GetModelVersionResponse(model_version=found)


async def resolved(**ppo: Any) -> trainer.TrainingJobSpec:
    wanted, peers = sft_spec(task_type="ppo"), Peers()
    wanted.ppo.CopyFrom(trainer.PpoRecipe(**ppo))
    bindings = frozenset([("projects/p", int(types.ROLE_ALGORITHM))])
    method = "/sluice.trainer.v1.TrainingJobService/CreateTrainingJob"
    with acting(Call(Principal("projects/p/apiKeys/ana", bindings), method)):
        return await Inputs(peers, peers, peers, peers).resolve(wanted)


async def test_only_what_gives_scores_is_a_reward_model() -> None:
    found = await resolved(reward_model_version="projects/p/models/classify/versions/2")
    assert found.ppo.reward_model_version.endswith("/2") and found.gate_policy == "rewarded"
    sentence = (
        r"spec\.ppo\.reward_model_version `.*/chat/versions/2` serves `chat` and gives no scores; name a version of"
    )
    with pytest.raises(Invalid, match=sentence):
        await resolved(reward_model_version="projects/p/models/chat/versions/2")
    with pytest.raises(Invalid, match=r"spec\.ppo\.rewards is empty"):
        await resolved()
