"""What the registry says of a task type decides over a job; the peers are stubs that answer from memory."""

import pytest
from training_jobs import sft_spec

import tasks
from kit.auth import Principal
from kit.rpc.call import Call, acting, system_call
from kit.rpc.errors import Denied, Invalid, StateConflict
from services.trainer.inputs import Inputs
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

ANA = "projects/p/apiKeys/ana"


class Peers:
    """All that a job asks, with one task type of the project."""

    def __init__(self, **fields):
        self.label = registry.TaskType(
            name="projects/p/taskTypes/radiology-report",
            recipe="sft",
            gate_policy="strict",
            **{"state": registry.TASK_TYPE_STATE_APPROVED, **fields},
        )

    async def GetTaskType(self, request, timeout):
        assert request.name == self.label.name
        return registry.GetTaskTypeResponse(task_type=self.label)

    async def GetDatasetVersion(self, request, timeout):
        version = dataset.DatasetVersion(name=request.name, task_type="radiology-report", split_rows={"train": 3})
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def GetModelVersion(self, request, timeout):
        artifact = types.Artifact(kind=types.ARTIFACT_KIND_FULL)
        return registry.GetModelVersionResponse(
            model_version=registry.ModelVersion(name=request.name, artifact=artifact)
        )

    async def GetGatePolicy(self, request, timeout):
        return registry.GetGatePolicyResponse()

    async def resolve(self, call, **fields):
        wanted = sft_spec(task_type="radiology-report", **fields)
        with acting(call):
            return await Inputs(self, self, self, self).resolve(wanted)

    async def admit(self, call):
        with acting(call):
            await Inputs(self, self, self, self).admit(sft_spec(task_type="radiology-report"))


def person(*roles):
    bindings = frozenset(("projects/p", int(role)) for role in (types.ROLE_ALGORITHM, *roles))
    return Call(Principal(ANA, bindings), "/sluice.trainer.v1.TrainingJobService/CreateTrainingJob")


@pytest.mark.parametrize("rule", [{"submit_roles": [types.ROLE_OPERATIONS]}, {"submit_principals": [f"{ANA}-2"]}])
async def test_who_may_not_submit_is_told_who_may_and_a_job_of_before_goes_on(rule):
    peers = Peers(**rule)
    who = "operations" if "submit_roles" in rule else f"`{ANA}-2`"
    words = f"`{ANA}` may not submit jobs of task type `radiology-report`; it is for {who}"
    with pytest.raises(Denied, match=words) as raised:
        await peers.resolve(person())
    assert raised.value.reason == errors.ERROR_REASON_ROLE_REQUIRED
    with pytest.raises(Denied, match=words):
        await peers.admit(person())
    await peers.admit(person(types.ROLE_OPERATIONS, types.ROLE_ADMIN))
    assert (await peers.resolve(person(types.ROLE_OPERATIONS, types.ROLE_ADMIN))).model == "m"
    assert (await peers.resolve(system_call("trainer"))).model == "m"


@pytest.mark.parametrize(
    ("state", "words"),
    [(registry.TASK_TYPE_STATE_PROPOSED, "waits for another"), (registry.TASK_TYPE_STATE_RETIRED, "was retired")],
)
async def test_no_new_job_of_what_may_not_be_used_and_one_of_before_goes_on(state, words):
    peers = Peers(state=state)
    with pytest.raises(StateConflict, match=words):
        await peers.resolve(person())
    with pytest.raises(StateConflict, match=words):
        await peers.admit(person())
    assert (await peers.resolve(system_call("trainer"))).model == "m"


async def test_a_job_gets_the_recipe_the_gate_and_the_defaults_of_its_task_type_but_for_what_it_says_itself():
    optimization = trainer.Optimization(learning_rate=0.25, epochs=3)
    peers = Peers(defaults=registry.TrainingDefaults(optimization=optimization, max_length=77))
    found = await peers.resolve(person())
    assert (found.WhichOneof("recipe"), found.gate_policy, found.max_length) == ("sft", "strict", 77)
    assert found.optimization.learning_rate == 0.25 and found.optimization.epochs == 3
    told = await peers.resolve(person(), optimization=trainer.Optimization(max_steps=5), max_length=9)
    assert (told.optimization.learning_rate, told.optimization.max_steps, told.max_length) == (0.25, 5, 9)
    assert not told.optimization.HasField("epochs")
    with acting(system_call("trainer")):
        assert await Inputs(peers, peers, peers, peers).resolve(told) == told


class BuiltIn(Peers):
    """Task types as they come with Sluice, and rows for `dpo`."""

    async def GetTaskType(self, request, timeout):
        name = request.name.rpartition("/")[2]
        found = registry.TaskType(
            **{"name": f"taskTypes/{name}", "state": registry.TASK_TYPE_STATE_APPROVED, **tasks.task_types()[name]}
        )
        return registry.GetTaskTypeResponse(task_type=found)

    async def GetDatasetVersion(self, request, timeout):
        version = dataset.DatasetVersion(name=request.name, task_type="dpo", split_rows={"train": 3})
        return dataset.GetDatasetVersionResponse(dataset_version=version)


async def test_pairs_for_one_method_do_for_another_but_not_for_other_rows():
    peers = BuiltIn()

    async def resolved(task_type: str) -> trainer.TrainingJobSpec:
        wanted = sft_spec(task_type=task_type)
        wanted.ClearField("sft")
        with acting(person()):
            return await Inputs(peers, peers, peers, peers).resolve(wanted)

    assert (await resolved("orpo")).HasField("orpo")
    with pytest.raises(Invalid, match=r"is `kto`, but `.*` has rows for `dpo`"):
        await resolved("kto")
