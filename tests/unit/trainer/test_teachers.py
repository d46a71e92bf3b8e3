"""A job that learns from another model names it, and its number is found as the base's is."""

import pytest
from training_jobs import sft_spec

import tasks
from kit.auth import Principal
from kit.rpc.call import Call, acting
from kit.rpc.errors import Invalid
from services.trainer.inputs import Inputs
from sluice.dataset import v1 as dataset
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types


class Peers:
    """Rows for `sft`; every version is an adapter where its name says so, and `stable` the seventh."""

    async def GetTaskType(self, request, timeout):
        name = request.name.rpartition("/")[2]
        found = {"name": f"taskTypes/{name}", "state": registry.TASK_TYPE_STATE_APPROVED, **tasks.task_types()[name]}
        return registry.GetTaskTypeResponse(task_type=registry.TaskType(**found))

    async def GetDatasetVersion(self, request, timeout):
        version = dataset.DatasetVersion(name=request.name, task_type="sft", split_rows={"train": 3})
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def GetModelVersion(self, request, timeout):
        kind = types.ARTIFACT_KIND_ADAPTER if "adapter" in request.name else types.ARTIFACT_KIND_FULL
        found = registry.ModelVersion(
            name=request.name.replace("stable", "7"),
            artifact=types.Artifact(kind=kind),
            base_model_version="projects/p/models/base/versions/1",
        )
        return registry.GetModelVersionResponse(model_version=found)


async def resolved(gkd: trainer.GkdRecipe) -> trainer.TrainingJobSpec:
    wanted, peers = sft_spec(task_type="gkd"), Peers()
    wanted.gkd.CopyFrom(gkd)
    bindings = frozenset([("projects/p", int(types.ROLE_ALGORITHM))])
    call = Call(
        Principal("projects/p/apiKeys/ana", bindings), "/sluice.trainer.v1.TrainingJobService/CreateTrainingJob"
    )
    with acting(call):
        return await Inputs(peers, peers, peers, peers).resolve(wanted)


async def test_the_teacher_is_found_and_may_be_an_adapter():
    for model in ("teacher", "adapter"):
        said = trainer.GkdRecipe(teacher_model_version=f"projects/p/models/{model}/versions/stable", lmbda=0.0)
        found = (await resolved(said)).gkd
        assert found.teacher_model_version == f"projects/p/models/{model}/versions/7"
        assert found.HasField("lmbda") and not found.HasField("beta")  # 0 is said, and not the default


async def test_a_job_without_a_teacher_is_refused():
    with pytest.raises(Invalid, match=r"spec\.gkd\.teacher_model_version is empty; name the model version to learn"):
        await resolved(trainer.GkdRecipe())
