"""`sluice models export|pull`: what is submitted, what is told of the end, and where files go."""

import hashlib
import json

import pytest
from scripted_suite import UUID, Script

from kit.blobs import manifest_digest
from sluice.cli import run
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

SOURCE = "projects/default/models/bot/versions/3"
ROWS = "projects/default/datasets/rows/versions/2"
JOB = f"projects/default/trainingJobs/{UUID}"
CONTENT = {"model.onnx": b"a graph" * 400_000, "config.json": b"{}"}


@pytest.fixture(autouse=True)
def suite(address, monkeypatch):
    monkeypatch.setenv("SLUICE_ADDRESS", address)
    monkeypatch.setenv("SLUICE_API_KEY", "sl_test")


@pytest.fixture
def source(script: Script) -> registry.ModelVersion:
    version = registry.ModelVersion(name=SOURCE, version=3, task_type="sft", endpoint="assistant", gate_policy="strict")
    version.lineage.dataset_version = ROWS
    script.model_versions[SOURCE] = version
    return version


def artifact(kind=types.ARTIFACT_KIND_PACKAGE):
    files = [
        types.ArtifactFile(path=path, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", size_bytes=len(data))
        for path, data in sorted(CONTENT.items())
    ]
    return types.Artifact(kind=kind, files=files, digest=manifest_digest(files))


def ended(script: Script, **fields) -> trainer.TrainingJob:
    """The job as it stands when it is over, for who watches and who asks."""
    spec = trainer.TrainingJobSpec(
        task_type="sft", model="bot", base_model_version=SOURCE, dataset_version=ROWS, export={"format": 4}
    )
    job = trainer.TrainingJob(name=JOB, spec=spec, **fields)
    script.job_snapshots, script.jobs[JOB], script.files = [job], job, CONTENT
    return job


def submitted(script: Script) -> trainer.TrainingJobSpec:
    [asked] = [each for each in script.requests if isinstance(each, trainer.CreateTrainingJobRequest)]
    return asked.training_job.spec


def test_an_export_asks_for_the_rows_the_source_was_trained_on_and_stays_at_its_model(script, source, capsys):
    assert (
        run(["models", "export", "bot@3", "--format", "gptq", "--bits", "4", "--group-size", "64", "--no-watch"]) == 0
    )
    spec = submitted(script)
    assert (spec.base_model_version, spec.dataset_version, spec.task_type) == (SOURCE, ROWS, "sft")
    assert (spec.model, spec.endpoint, spec.gate_policy) == ("bot", "assistant", "strict")
    assert (spec.export.format, spec.export.bits, spec.export.group_size) == (trainer.EXPORT_FORMAT_GPTQ, 4, 64)
    assert "sluice jobs watch" in capsys.readouterr().err


def test_rows_model_and_number_format_can_be_said(script, source):
    line = (
        "models export bot@3 --format merged --precision bfloat16 --rows other@7 --model small --endpoint e --no-watch"
    )
    assert run(line.split()) == 0
    spec = submitted(script)
    assert (spec.model, spec.endpoint, spec.precision) == ("small", "e", trainer.PRECISION_BFLOAT16)
    assert spec.dataset_version == "projects/default/datasets/other/versions/7"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--format tflite", "format is `tflite`; take one of merged, gptq, awq, onnx, gguf, faiss"),
        ("--format faiss --index ivf", "index is `ivf`; take one of flat, hnsw"),
        ("--format merged --precision int8", "precision is `int8`; take one of float32, bfloat16"),
    ],
)
def test_a_word_that_is_not_known_is_told_with_those_that_are(script, source, capsys, line, said):
    assert run(["models", "export", "bot@3", *line.split()]) == 2
    assert said in capsys.readouterr().err and not script.requests


def test_rows_must_be_said_where_the_source_does_not_know_them(script, source, capsys):
    source.lineage.ClearField("dataset_version")
    assert run(["models", "export", "bot@3", "--format", "onnx"]) == 2
    assert "does not say which rows it was trained on" in capsys.readouterr().err


def test_a_package_is_followed_measured_and_fetched_with_its_digests(script, source, capsys, tmp_path):
    job = ended(script, state=types.JOB_STATE_SUCCEEDED, result={"artifact": artifact()})
    job.result.metrics.update({"size_ratio": 1.1, "max_abs_difference": 8e-6, "top1_agreement": 1.0})
    job.result.environment.update({"source_dtype": "float32", "measured_on": "validation"})
    assert run(["models", "export", "bot@3", "--format", "onnx", "--output", str(tmp_path)]) == 0
    folder = tmp_path / "task-type=sft" / UUID
    assert {path: (folder / path).read_bytes() for path in CONTENT} == CONTENT
    told = json.loads((folder / "sluice-manifest.json").read_text("utf-8"))
    assert told["digest"] == artifact().digest and told["kind"] == "package" and told["metrics"]["size_ratio"] == 1.1
    assert told["files"]["config.json"]["digest"] == f"sha256:{hashlib.sha256(b'{}').hexdigest()}"
    said = capsys.readouterr().out
    assert "1.1 of the source in float32" in said and "8e-06" in said and "validation rows of rows@2" in said


def test_what_is_there_in_part_goes_on_and_what_came_wrong_is_not_kept(script, source, capsys, tmp_path):
    ended(script, state=types.JOB_STATE_SUCCEEDED, result={"artifact": artifact()})
    folder = tmp_path / "task-type=sft" / UUID
    folder.mkdir(parents=True)
    (folder / "model.onnx.part").write_bytes(CONTENT["model.onnx"][:5000])
    assert run(["jobs", "pull", UUID, "--output", str(tmp_path)]) == 0
    asked = {each.path: each.offset for each in script.requests if isinstance(each, trainer.ReadTrainingJobFileRequest)}
    assert asked == {"config.json": 0, "model.onnx": 5000}
    assert (folder / "model.onnx").read_bytes() == CONTENT["model.onnx"]
    script.files = {**CONTENT, "model.onnx": b"x" * len(CONTENT["model.onnx"])}
    assert run(["jobs", "pull", UUID, "--output", str(tmp_path / "other")]) != 0
    assert "did not arrive as it was stored" in capsys.readouterr().err
    assert not list((tmp_path / "other").rglob("model.onnx*")) and not list((tmp_path / "other").rglob("*manifest*"))


def test_an_export_that_failed_says_why_and_exits_with_1(script, source, capsys, tmp_path):
    ended(script, state=types.JOB_STATE_FAILED, failure={"message": "in/base is quantized already."})
    assert run(["models", "export", "bot@3", "--format", "onnx", "--output", str(tmp_path)]) == 1
    assert "quantized already" in capsys.readouterr().err
    assert run(["jobs", "pull", UUID, "--output", str(tmp_path)]) == 6
    assert "has left nothing" in capsys.readouterr().err
