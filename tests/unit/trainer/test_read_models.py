"""What a job learned from beside its base stands in its result, whatever it was for."""

from kit.blobs import FileKek, open_store, store_artifact
from services.trainer.agent import results, staging
from services.trainer.folders import AttemptFolder
from sluice.dataset import v1 as dataset
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

VERSION = "projects/p/models/{}/versions/1"
JUDGE = trainer.Reward.Judge(endpoint="fair", model_version=VERSION.format("taste"))


class Peers:
    """One row, and one artifact for every version."""

    def __init__(self, artifact):
        self.artifact = artifact

    async def GetDatasetVersion(self, request, timeout):
        version = dataset.DatasetVersion(name=request.name, digest="sha256:rows", split_rows={"train": 1})
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def ReadDatasetVersion(self, request):
        yield dataset.ReadDatasetVersionResponse(rows=b"{}\n")

    async def GetModelVersion(self, request, timeout):
        version = registry.ModelVersion(name=request.name, artifact=self.artifact)
        return registry.GetModelVersionResponse(model_version=version)


async def result_of(tmp_path, **recipe):
    """What the agent makes of a job that is staged and trained."""
    spec = trainer.TrainingJobSpec(
        dataset_version="projects/p/datasets/d/versions/1", base_model_version=VERSION.format("base"), **recipe
    )
    job = trainer.TrainingJob(name="projects/p/trainingJobs/1", spec=spec)
    blobs = open_store(f"file://{tmp_path / 'blobs'}", FileKek(b"k" * 32))
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    peers = Peers(await store_artifact(blobs, "projects/p", weights, types.ARTIFACT_KIND_FULL))
    folder = AttemptFolder(tmp_path / "jobs" / "1")
    folder.create()
    staged = await staging.stage(staging.Sources(peers, peers, blobs, peers), job, 1, folder)
    (folder.path / "out" / "model").mkdir(parents=True, exist_ok=True)
    (folder.path / "out" / "model" / "config.json").write_text("{}")
    said = {"artifact": {"kind": "full"}}
    return await results.upload(blobs, "projects/p", folder, said, staged)


async def test_a_teacher_is_told_with_its_digest(tmp_path):
    result = await result_of(tmp_path, gkd={"teacher_model_version": VERSION.format("teacher")})
    assert dict(result.read_model_versions) == {"teacher": VERSION.format("teacher")}
    assert set(result.model_digests) == {"teacher"} and result.base_digest == result.model_digests["teacher"]


async def test_a_reward_model_and_a_judge_are_told(tmp_path):
    rewards = [trainer.Reward(judge=JUDGE)]
    result = await result_of(tmp_path, ppo={"reward_model_version": VERSION.format("rm"), "rewards": rewards})
    assert dict(result.read_model_versions) == {"reward": VERSION.format("rm"), "judge-fair": VERSION.format("taste")}
    assert set(result.model_digests) == {"reward"}


async def test_who_learns_from_rows_alone_read_nothing_else(tmp_path):
    assert not (await result_of(tmp_path, sft={})).read_model_versions
