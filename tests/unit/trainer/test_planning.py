"""A plan of a job finds its model's config.json with the registry; the peers are stubs that answer from memory."""

import json

import pytest
from training_jobs import sft_spec

from kit.rpc.call import acting, system_call
from kit.rpc.errors import Invalid
from services.trainer.inputs import Inputs
from services.trainer.plan.memory import IMPORTS
from services.trainer.planning import Planning, host_bytes
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


class Peers:
    """One dataset version of 64 rows, one base with these files, and adapters on it, each of so many bytes."""

    def __init__(self, files, adapters, held=""):
        self.files, self.adapters, self.held = files, adapters, held

    async def GetTaskType(self, request, timeout):
        name = request.name.rsplit("/", 1)[1]
        return registry.GetTaskTypeResponse(task_type=registry.TaskType(recipe=name, gate_policy="gate"))

    async def GetDatasetVersion(self, request, timeout):
        kind = {"texts": "pretrain", "questions": "gkd"}.get(request.name.split("/")[3], "sft")
        version = dataset.DatasetVersion(name=request.name, task_type=kind, split_rows={"train": 64})
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def GetModelVersion(self, request, timeout):
        files = [types.ArtifactFile(path=path, digest=path, size_bytes=len(self.files[path])) for path in self.files]
        version = registry.ModelVersion(name=request.name)
        if size := self.adapters.get(request.name):
            version.base_model_version = "projects/p/models/base/versions/1"
            adapter = types.ArtifactFile(path="adapter_model.safetensors", digest="-", size_bytes=size)
            version.artifact.CopyFrom(types.Artifact(kind=types.ARTIFACT_KIND_ADAPTER, files=[adapter]))
        else:
            version.artifact.CopyFrom(types.Artifact(kind=types.ARTIFACT_KIND_FULL, files=files))
            if self.held:
                version.lineage.environment["quantization"] = self.held
        return registry.GetModelVersionResponse(model_version=version)

    async def open(self, project, digest):
        assert project == "projects/p"
        yield self.files[digest]


async def planned(spec, files=None, pool="cpu", host=10**10, adapters=None, held="", **request):
    peers = Peers({"config.json": json.dumps(CONFIG).encode()} if files is None else files, adapters or {}, held)
    planning = Planning(Inputs(peers, peers, peers, peers, pool).resolve_unjudged, peers, peers, peers, pool, host)
    with acting(system_call("trainer")):
        return await planning.plan(trainer.PlanTrainingJobRequest(parent="projects/p", spec=spec, **request))


async def test_a_job_from_a_base_is_planned_by_its_config():
    said = await planned(sft_spec())
    assert (said.architecture, said.tuner, said.device) == ("qwen3", "lora", "cpu")
    assert (said.batch_size, said.max_length, said.steps) == (32, 128, 6)  # what the model has positions for
    assert said.memory.limit_bytes == 10**10 - IMPORTS and said.fits
    assert said.disk.staged_bytes == len(json.dumps(CONFIG))
    assert not said.HasField("step_time")
    told = await planned(sft_spec(), tokens_per_s=4096)
    assert told.step_time.seconds == 1 and told.total_time.seconds == 6


async def test_a_new_model_is_planned_by_its_shape():
    shape = trainer.ModelShape(
        hidden_size=64, layers=2, heads=2, kv_heads=1, vocab_size=1000, max_position_embeddings=128
    )
    spec = sft_spec(task_type="pretrain", dataset_version="projects/p/datasets/texts/versions/1")
    spec.base_model_version = ""
    spec.pretrain.shape.CopyFrom(shape)
    said = await planned(spec)
    assert said.tuner == "full" and said.parameters.total == said.parameters.trainable == 162_752
    assert said.parameters.total == (await planned(sft_spec())).parameters.total


async def test_a_job_too_large_for_the_host_is_told_what_to_change():
    said = await planned(sft_spec(), host=IMPORTS + 110_000_000)
    assert not said.fits and "it does with batch_size" in said.advice


async def test_of_a_host_that_is_not_known_nothing_is_said():
    said = await planned(sft_spec(), host=0)
    assert said.memory.limit_bytes == 0 and "not known" in said.advice


@pytest.mark.parametrize(
    ("files", "request_", "field", "words"),
    [
        ({}, {}, "config.json", "is not among the files"),
        ({"config.json": b"{"}, {}, "config.json", "is not JSON"),
        ({"config.json": b"[]"}, {}, "config.json", "is not an object"),
        ({"config.json": b'{"model_type": "mamba"}'}, {}, "model_type", "is `mamba`"),
        (None, {"device": "b9000"}, "device", "is `b9000`"),
        (None, {"devices": 8}, "sharding", "go together"),
    ],
)
async def test_what_is_not_known_is_a_typed_error_that_names_it(files, request_, field, words):
    with pytest.raises(Invalid, match=words) as raised:
        await planned(sft_spec(), files, **request_)
    assert raised.value.violations[0][0] == field
    assert raised.value.reason == errors.ERROR_REASON_INVALID_FIELD


async def test_a_trainer_with_accelerators_wants_them_named():
    with pytest.raises(Invalid, match="does not know which cuda it has"):
        await planned(sft_spec(), pool="cuda")
    said = await planned(sft_spec(), pool="cuda", device="a100-80gb")
    assert said.fits and said.step_time.ToTimedelta().total_seconds() > 0


async def test_a_job_of_another_project_is_refused_before_anybody_is_asked():
    with pytest.raises(Invalid, match="is not in `projects/p`"):
        await planned(sft_spec(dataset_version="projects/q/datasets/d/versions/1"))


def test_jobs_share_the_memory_of_a_host():
    assert 0 < host_bytes(2) * 2 <= host_bytes(1) + 1


async def test_models_beside_the_base_are_planned_by_their_own_config():
    """A teacher that is an adapter has the config.json of its base, and takes the files of both."""
    spec = sft_spec(task_type="gkd", dataset_version="projects/p/datasets/questions/versions/1")
    spec.gkd.teacher_model_version = "projects/p/models/taught/versions/1"
    said = await planned(spec, adapters={"projects/p/models/taught/versions/1": 4})
    assert said.memory.beside_bytes == 4 * said.parameters.total
    assert said.disk.staged_bytes == 2 * len(json.dumps(CONFIG)) + 4


async def test_processes_on_one_host_share_its_memory():
    spec = sft_spec()
    spec.distribution.devices, spec.distribution.sharding = 2, trainer.SHARDING_ZERO2
    said = await planned(spec)
    assert (said.devices, said.sharding) == (2, trainer.SHARDING_ZERO2)
    assert said.memory.limit_bytes == 10**10 // 2 - IMPORTS and said.trainable
    assert said.memory.optimizer_bytes < (await planned(sft_spec())).memory.optimizer_bytes
    spec.distribution.tensor_parallel_size = 2
    with pytest.raises(Invalid, match="which of a model's matrices"):
        await planned(spec)


async def test_what_is_refused_of_a_base_of_few_bits_is_refused_of_its_plan():
    spec = sft_spec(lora=trainer.LoraTuner(rank=8))
    spec.distribution.devices, spec.distribution.sharding = 2, trainer.SHARDING_ZERO2
    assert (await planned(spec)).devices == 2
    with pytest.raises(Invalid, match=r"distribution\.devices is more than 1, but .* its weights are gptq int4"):
        await planned(spec, held="gptq int4 in groups of 32")
