"""What is refused of jobs that learn from rewards, what of them the agent may ask, and how they are written."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from training_jobs import sft_spec

import tasks
from kit.auth import AccessSnapshot, Authenticator, Identity, Principal, Verifier
from kit.rpc.call import Call, acting
from kit.rpc.errors import Invalid, StateConflict, Unavailable
from kit.serve import Runtime
from kit.settings import Settings
from services.trainer.agent.judge import Judges
from services.trainer.agent.staging import recipe_spec
from services.trainer.app import endpoints_of
from services.trainer.inputs import Inputs
from services.trainer.judging import judges_of
from services.trainer.refusals import Asked, refusals
from services.trainer.spec import read_models
from sluice.client.specs import training_spec
from sluice.dataset import v1 as dataset
from sluice.gateway import v1 as gateway
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
    assert [each.endpoint for each in judges_of(spec)] == ["fair"]
    job = trainer.TrainingJob(name="projects/p/trainingJobs/1", spec=spec)
    told = recipe_spec(job, 1)["parameters"]
    assert told["rewards"] == [
        {"exact_match": {}},
        {"weight": 0.5, "length": {"at_least": 0, "at_most": 80}},
        {"judge": {"endpoint": "fair", "instruction": "", "best": 0.0, "model_version": ""}},
    ]
    assert told["group_size"] == 4 and told["scale_rewards"] is False and "beta" not in told
    fields = [{"contains": {"text": "a, b"}, "weight": -1}, trainer.Reward(valid_json={"members": ["a"]})]
    other = training_spec("projects/p", dataset="d", model="bot", task_type="ppo", rewards=fields)
    said = MessageToDict(other.ppo, preserving_proto_field_name=True)["rewards"]
    assert said == [{"weight": -1.0, "contains": {"text": "a, b"}}, {"valid_json": {"members": ["a"]}}]
    assert list(judges_of(other)) == list(judges_of(sft_spec())) == []


@pytest.mark.parametrize(
    ("version", "asked", "why"),
    [
        (
            "projects/p/models/taste/versions/3",
            "fair@taste@3",
            "`taste@3`, which grades this job, serves there no more",
        ),
        ("", "fair", "HTTP 404; see that it serves a model for chat"),
    ],
)
async def test_the_version_that_was_found_is_asked_and_no_other_in_its_place(
    version: str, asked: str, why: str
) -> None:
    there = True

    def answer(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content)["model"] == f"projects/p/endpoints/{asked}"
        assert request.headers["x-sluice-session"] == "one"
        return httpx.Response(200 if there else 404, json={"choices": [{"message": {"content": "7"}}]})

    spec = trainer.TrainingJobSpec()
    spec.grpo.rewards.add().judge.MergeFrom(trainer.Reward.Judge(endpoint="fair", model_version=version))
    asking = {"endpoint": "fair", "questions": [[], []]}
    judges = Judges(trainer.TrainingJob(name="projects/p/trainingJobs/one", spec=spec), str, str)
    async with httpx.AsyncClient(base_url="http://gateway", transport=httpx.MockTransport(answer)) as client:
        assert await judges._answers(asking, client) == {"answers": ["7", "7"]}
        there = False
        assert why in (await judges._answers(asking, client))["error"]


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

    async def GetGatePolicy(self, request, timeout):
        return registry.GetGatePolicyResponse()

    async def GetEndpoint(self, request, timeout):
        return gateway.GetEndpointResponse(endpoint=ENDPOINTS[request.name.rpartition("/")[2]])


def serving(*versions: str, interface: str = "chat") -> gateway.Endpoint:
    """The first is the stable one."""
    roles = (gateway.ARM_ROLE_STABLE, gateway.ARM_ROLE_CANDIDATE)
    arms = [gateway.Arm(model_version=VERSION + each, role=role) for each, role in zip(versions, roles, strict=False)]
    return gateway.Endpoint(name="projects/p/endpoints/e", interface=interface, route=arms)


VERSION = "projects/p/models/"
ENDPOINTS = {
    "fair": serving("taste/versions/3", "taste/versions/4"),
    "own": serving("m/versions/1"),
    "new": serving(),
    "vectors": serving("taste/versions/1", interface="embeddings"),
}


async def resolved(**ppo: Any) -> trainer.TrainingJobSpec:
    wanted = sft_spec(task_type="ppo")
    wanted.ppo.CopyFrom(trainer.PpoRecipe(**ppo))
    return await again(wanted)


async def again(wanted: trainer.TrainingJobSpec) -> trainer.TrainingJobSpec:
    peers = Peers()
    bindings = frozenset([("projects/p", int(types.ROLE_ALGORITHM))])
    method = "/sluice.trainer.v1.TrainingJobService/CreateTrainingJob"
    with acting(Call(Principal("projects/p/apiKeys/ana", bindings), method)):
        return await Inputs(peers, peers, peers, peers, endpoints=peers).resolve(wanted)


def graded(*judges: trainer.Reward.Judge) -> dict[str, Any]:
    return {"rewards": [trainer.Reward(judge=judge) for judge in judges]}


async def test_the_stable_version_of_its_judge_grades_the_whole_job_and_is_what_it_learned_from() -> None:
    taste = "projects/p/models/classify/versions/2"
    judges = graded(trainer.Reward.Judge(endpoint="fair"), trainer.Reward.Judge(endpoint="fair", best=5))
    found = await resolved(**judges, reward_model_version=taste)
    assert [part.judge.model_version for part in found.ppo.rewards] == [VERSION + "taste/versions/3"] * 2
    assert await again(found) == found
    assert read_models(found) == {"reward": taste, "judge-fair": VERSION + "taste/versions/3"}
    told = await resolved(**graded(trainer.Reward.Judge(endpoint="fair", model_version=VERSION + "taste/versions/4")))
    assert told.ppo.rewards[0].judge.model_version == VERSION + "taste/versions/4"


@pytest.mark.parametrize(
    ("judges", "kind", "sentence"),
    [
        (
            [{"endpoint": "m"}],
            Invalid,
            r"spec\.ppo\.rewards asks the endpoint `m`, which the model being trained is for",
        ),
        ([{"endpoint": "own"}], Invalid, "asks `own`, which serves `.*m/versions/1`, a version of the model being"),
        ([{"endpoint": "vectors"}], Invalid, "asks `vectors`, which serves `embeddings`; name an endpoint for chat"),
        ([{"endpoint": "new"}], StateConflict, "`new`, which is to grade answers, serves no version yet"),
        (
            [{"endpoint": "fair", "model_version": VERSION + "taste/versions/9"}],
            StateConflict,
            "`fair` does not serve `.*/taste/versions/9`, which is to grade answers; bring it back",
        ),
        (
            [{"endpoint": "fair"}, {"endpoint": "fair", "model_version": VERSION + "taste/versions/4"}],
            Invalid,
            "asks two versions of the endpoint `fair`; let one of them grade",
        ),
    ],
)
async def test_what_cannot_grade_a_job_is_refused_when_it_is_submitted(
    judges: list[dict[str, Any]], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        await resolved(**graded(*(trainer.Reward.Judge(**each) for each in judges)))


async def test_without_a_gateway_a_job_with_a_judge_is_refused_and_planned_all_the_same() -> None:
    peers, wanted = Peers(), sft_spec(task_type="ppo")
    alone = Inputs(peers, peers, peers, peers)
    bindings = frozenset([("projects/p", int(types.ROLE_ALGORITHM))])
    with acting(Call(Principal("projects/p/apiKeys/ana", bindings), "/x/CreateTrainingJob")):
        wanted.ppo.CopyFrom(trainer.PpoRecipe(rewards=[trainer.Reward(length=trainer.Reward.Length(at_most=9))]))
        assert (await alone.resolve(wanted)).HasField("ppo")
        wanted.ppo.CopyFrom(trainer.PpoRecipe(**graded(trainer.Reward.Judge(endpoint="fair"))))
        with pytest.raises(Unavailable, match="the gateway is not known to this trainer, so nobody can grade answers"):
            await alone.resolve(wanted)
        assert (await alone.resolve_unjudged(wanted)).ppo.rewards[0].judge.endpoint == "fair"


@pytest.mark.parametrize("address", ["", "127.0.0.1:1"])
async def test_a_trainer_starts_without_the_address_of_a_gateway(tmp_path: Path, address: str) -> None:
    settings = Settings("trainer", tmp_path, {"gateway": address} if address else {})
    access = AccessSnapshot()
    authenticator = Authenticator(access, Verifier(tmp_path), service="trainer")
    runtime = Runtime(settings, Identity.create(tmp_path, "trainer"), access, authenticator)
    try:
        assert (endpoints_of(runtime) is None) == (not address)
    finally:
        await runtime.close()


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
