"""What an export is made of: refused at submission where it cannot be done, and what it is read by is told."""

import json
import sys
from pathlib import Path

import pytest
from sqlmodel import select
from training_jobs import NAME, job_in

import services.trainer
import tasks
from kit.auth import Principal
from kit.blobs import FileKek, open_store, store_artifact
from kit.rpc.call import Call, acting
from kit.rpc.errors import Invalid, NotFound
from kit.store import OutboxRow
from services.trainer import exporting, store
from services.trainer.agent.recipe import RECIPES
from services.trainer.agent.results import KINDS
from services.trainer.agent.staging import recipe_spec
from services.trainer.inputs import Inputs
from services.trainer.servicer import TrainingJobServicer
from services.trainer.spec import command_name
from sluice.dataset import v1 as dataset
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types
from tests.migrated import migrated

HERE = Path(sys.executable)
ROOT = Path(services.trainer.__file__).parents[2]
FORMAT = {word: getattr(trainer, f"EXPORT_FORMAT_{word.upper()}") for word in exporting.MADE_OF}


class Peers:
    """Built-in task types, rows of one, and a version, an adapter unless something else is said."""

    def __init__(self, task_type="sft", kind=types.ARTIFACT_KIND_ADAPTER, held="", rows="", below=""):
        self.task_type, self.kind, self.held, self.rows = task_type, kind, held, rows or task_type
        self.below = below

    async def GetTaskType(self, request, timeout):
        name = request.name.rpartition("/")[2]
        told = {"defaults": registry.TrainingDefaults(max_length=77, optimization={"learning_rate": 0.5})}
        found = registry.TaskType(
            name=f"taskTypes/{name}", state=registry.TASK_TYPE_STATE_APPROVED, **{**tasks.task_types()[name], **told}
        )
        return registry.GetTaskTypeResponse(task_type=found)

    async def GetDatasetVersion(self, request, timeout):
        version = dataset.DatasetVersion(name=request.name, task_type=self.rows, split_rows={"train": 3})
        return dataset.GetDatasetVersionResponse(dataset_version=version)

    async def GetModelVersion(self, request, timeout):
        version = registry.ModelVersion(
            name=request.name, task_type=self.task_type, artifact=types.Artifact(kind=self.kind)
        )
        version.base_model_version = "projects/p/models/base/versions/1"
        if held := self.below if request.name == version.base_model_version else self.held:
            version.lineage.environment["quantization"] = held
        return registry.GetModelVersionResponse(model_version=version)

    async def GetGatePolicy(self, request, timeout):
        return registry.GetGatePolicyResponse()

    async def resolve(self, spec, python=HERE, device="cpu"):
        roles = frozenset({("projects/p", int(types.ROLE_ALGORITHM))})
        with acting(Call(Principal("projects/p/apiKeys/ana", roles), "/x/CreateTrainingJob")):
            return await Inputs(self, self, self, self, device, python).resolve(spec)


def wanted(form="merged", task_type="sft", own=None, **fields):
    return trainer.TrainingJobSpec(
        task_type=task_type,
        dataset_version="projects/p/datasets/d/versions/1",
        base_model_version="projects/p/models/m/versions/2",
        model="m",
        export=trainer.ExportRecipe(format=FORMAT[form], **(own or {})),
        **fields,
    )


async def test_an_adapter_may_be_exported_and_nothing_of_a_training_is_filled_in():
    found = await Peers().resolve(wanted())
    assert found.export.trained_by == "sft" and (found.endpoint, found.gate_policy) == ("m", "no-regression")
    assert found.WhichOneof("tuner") is None and not found.HasField("optimization") and not found.max_length
    assert await Peers().resolve(found) == found
    job = trainer.TrainingJob(name=NAME, spec=found)
    assert recipe_spec(job, 1)["parameters"]["trained_by"] == "sft" and command_name(found) == "export-merged"


@pytest.mark.parametrize(
    ("peers", "spec", "why"),
    [
        (Peers(), wanted(lora=trainer.LoraTuner(rank=8)), "spec.lora is given, but an export trains nothing"),
        (Peers(), wanted(optimization={"max_steps": 3}), "spec.optimization is given, but an export trains nothing"),
        (Peers(), wanted(checkpoint_every_steps=3), "spec.checkpoint_every_steps is given"),
        (Peers(), wanted("onnx", precision=trainer.PRECISION_BFLOAT16), "spec.precision is given, but onnx has"),
        (Peers(), wanted("onnx", own={"bits": 8}), "spec.export.bits is given, but onnx has none"),
        (Peers(), wanted("gguf", own={"group_size": 32}), "spec.export.group_size is given, but gguf has none"),
        (Peers(), wanted("merged", own={"index": 1}), "spec.export.index is given, but merged has none"),
        (Peers(), wanted("gguf", own={"bits": 4}), "spec.export.bits is 4, and gguf has 8 or 16"),
        (Peers(), wanted("gptq", own={"bits": 8}), "spec.export.bits is 8, which vLLM does not serve on CPUs"),
        (Peers(), wanted("faiss"), "models of `sft` cannot be .* as; take one of merged, gptq, awq, onnx, gguf"),
        (Peers("embedding"), wanted("gguf", "embedding"), "models of `embedding` cannot .*; take one of onnx, faiss"),
        (Peers("dpo", rows="sft"), wanted(), "spec.task_type is `sft`, but the version to export is of `dpo`"),
        (Peers(kind=types.ARTIFACT_KIND_FULL), wanted(), "is whole weights.*: sluice models pull"),
        (Peers(held="gptq int4"), wanted("onnx"), "base_model_version holds its weights as gptq int4 already"),
        (Peers(below="awq int4"), wanted(), "is an adapter on weights that are awq int4, into which nothing can be"),
    ],
)  # fmt: skip
async def test_what_cannot_be_exported_is_refused_with_the_fix(peers, spec, why):
    with pytest.raises(Invalid, match=why):
        await peers.resolve(spec)


async def test_few_bits_need_their_environment_and_the_command_that_makes_it_is_told(tmp_path):
    for form in exporting.QUANTIZED:
        with pytest.raises(Invalid, match="make quantization"):
            await Peers().resolve(wanted(form), python=tmp_path / "python")
        assert (await Peers().resolve(wanted(form))).export.trained_by == "sft"
    assert (await Peers().resolve(wanted("gptq", own={"bits": 8}), device="cuda")).export.bits == 8


async def test_no_recipe_starts_from_an_adapter():
    spec = wanted()
    spec.sft.SetInParent()
    with pytest.raises(Invalid, match="is an adapter, which must be merged into its base first"):
        await Peers().resolve(spec)


def test_every_form_has_a_command_and_few_bits_a_python_of_their_own():
    forms = {word.removeprefix("EXPORT_FORMAT_").lower() for word in trainer.ExportFormat.keys()[1:]}
    assert forms == set(exporting.MODULES) == set(exporting.MADE_OF)
    for form in forms:
        python, _, module = RECIPES[f"export-{form}"]
        assert (python == str(exporting.QUANTIZATION_PYTHON)) == (form in exporting.QUANTIZED)
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    assert KINDS["package"] == types.ARTIFACT_KIND_PACKAGE


async def downloads(database):
    """Who took which file from where on, as the event log tells it."""
    async with database.read() as session:
        rows = (await session.exec(select(OutboxRow))).all()
    told = [(row.principal, json.loads(row.data_json)) for row in rows if row.type.endswith("training_job.downloaded")]
    return [(who, data["path"], data["offset"]) for who, data in told]


async def test_what_a_job_left_is_read_from_any_byte_and_each_read_is_told(tmp_path):
    database = await migrated(services.trainer)
    blobs = open_store(f"file://{tmp_path / 'blobs'}", FileKek.create(tmp_path / "kek", home=tmp_path / "home"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_bytes(bytes(range(256)) * 9000)
    job = job_in("SUCCEEDED")
    kept = await store_artifact(blobs, "projects/p", tmp_path / "out", types.ARTIFACT_KIND_PACKAGE)
    job.result.artifact.CopyFrom(kept)
    await database.transact(lambda unit: store.JOBS.insert(unit, job))
    servicer = TrainingJobServicer(database, None, None, tmp_path, None, blobs)

    async def read(path, offset=0):
        asked = trainer.ReadTrainingJobFileRequest(name=NAME, path=path, offset=offset)
        return [answer.data async for answer in servicer.ReadTrainingJobFile(asked, None)]

    with acting(Call(Principal("projects/p/apiKeys/ana", frozenset()), "/x/ReadTrainingJobFile")):
        pieces = await read("model.onnx", 1000)
        assert b"".join(pieces) == (bytes(range(256)) * 9000)[1000:] and max(map(len, pieces)) <= 1 << 20
        assert await downloads(database) == [("projects/p/apiKeys/ana", "model.onnx", "1000")]
        with pytest.raises(NotFound, match="has left no file `x`"):
            await read("x")
        with pytest.raises(Invalid, match="has 2304000 bytes, so none at 2304001"):
            await read("model.onnx", 2304001)
        assert len(await downloads(database)) == 1
    await database.close()
