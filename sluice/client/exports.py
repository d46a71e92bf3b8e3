"""Versions written in another form, and weights taken out of the suite into folders that say what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

from google.protobuf.json_format import MessageToDict

from kit.rpc.errors import Invalid, StateConflict
from sluice.client import downloads, names
from sluice.client.connection import Connection
from sluice.client.uploads import OnProgress
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

Format = Literal["merged", "gptq", "awq", "onnx", "gguf", "faiss"]
FORMATS: tuple[str, ...] = get_args(Format)
#: Those that become versions, which are judged and served like any; the others are packages to take away.
SERVED = ("merged", "gptq", "awq")
#: Written last: a folder that has it is whole.
MANIFEST = "sluice-manifest.json"


class Options(TypedDict, total=False):
    """What an export can be told. Every one may be left out."""

    #: The rows that calibrate and measure, `bank-intents@3`; of an index, its documents. Else what it was trained on.
    rows: str
    #: Of the version that merged, gptq and awq become; else those of the source.
    model: str
    endpoint: str
    gate_policy: str
    bits: int
    group_size: int
    calibration_rows: int
    index: Literal["flat", "hnsw"]
    precision: Literal["float32", "bfloat16"]
    max_length: int
    seed: int


def spec_of(
    parent: str, source: registry.ModelVersion, format: str, **told: Unpack[Options]
) -> trainer.TrainingJobSpec:
    """The job in project ``parent`` that writes ``source`` as ``format``. Raises Invalid."""
    short = names.short(source.name)
    rows = names.dataset_version(parent, told["rows"]) if told.get("rows") else source.lineage.dataset_version
    if not rows:
        raise Invalid(f"`{short}` does not say which rows it was trained on; name some, such as rows bank-intents@1")
    model = names.short(names.model(parent, told["model"])) if told.get("model") else source.name.split("/")[3]
    return trainer.TrainingJobSpec(
        task_type=source.task_type,
        dataset_version=rows,
        base_model_version=source.name,
        model=model,
        endpoint=told.get("endpoint") or source.endpoint,
        gate_policy=told.get("gate_policy") or source.gate_policy,
        precision=_enum("PRECISION", "precision", told.get("precision", ""), ("float32", "bfloat16")),
        max_length=told.get("max_length", 0),
        seed=told.get("seed", 0),
        export=trainer.ExportRecipe(
            format=_enum("EXPORT_FORMAT", "format", format, FORMATS),
            index=_enum("FAISS_INDEX", "index", told.get("index", ""), ("flat", "hnsw")),
            bits=told.get("bits", 0),
            group_size=told.get("group_size", 0),
            calibration_rows=told.get("calibration_rows", 0),
        ),
    )


def _enum(prefix: str, name: str, word: str, words: tuple[str, ...]) -> Any:
    """The constant of a word; of none the one that says nothing. Raises Invalid for another one."""
    if word and word not in words:
        raise Invalid(f"{name} is `{word}`; take one of {', '.join(words)}")
    return f"{prefix}_{(word or 'unspecified').upper()}"


def folder_of(output: Path, task_type: str, name: str) -> Path:
    """Where the files of a job or a version lie: `<output>/task-type=<type>/<job>`."""
    return output / f"task-type={task_type}" / names.short(name)


async def pull_version(
    connection: Connection, version: registry.ModelVersion, output: Path, progress: OnProgress | None
) -> Path:
    """The files of a version, checked by their digests, and a manifest; returns the folder."""
    folder = folder_of(output, version.task_type, version.lineage.training_job or version.name)
    await downloads.fetch(connection, version, folder, progress)
    lineage = MessageToDict(version.lineage, preserving_proto_field_name=True)
    about = {"model_version": version.name, "base_model_version": version.base_model_version, "lineage": lineage}
    _write(folder, version.task_type, version.artifact, about)
    return folder


async def pull_job(connection: Connection, job: trainer.TrainingJob, output: Path, progress: OnProgress | None) -> Path:
    """What a job left, checked by its digests, and a manifest; returns the folder. Raises StateConflict where it left
    nothing yet.
    """
    if not job.HasField("result"):
        state = types.JobState.Name(job.state).removeprefix("JOB_STATE_")
        raise StateConflict(f"`{names.short(job.name)}` is {state} and has left nothing; sluice jobs watch follows it")
    folder = folder_of(output, job.spec.task_type, job.name)
    await downloads.fetch_job(connection, job, folder, progress)
    said = MessageToDict(job.result, preserving_proto_field_name=True)
    kept = ("metrics", "settings", "environment", "dataset_digest", "base_digest")
    about = {
        "training_job": job.name,
        "spec": MessageToDict(job.spec, preserving_proto_field_name=True),
        **{name: said[name] for name in kept if name in said},
    }
    _write(folder, job.spec.task_type, job.result.artifact, about)
    return folder


def _write(folder: Path, task_type: str, artifact: types.Artifact, about: dict[str, Any]) -> None:
    """Puts the manifest beside the files, in one move."""
    files = {file.path: {"digest": file.digest, "size_bytes": file.size_bytes} for file in artifact.files}
    kind = types.ArtifactKind.Name(artifact.kind).removeprefix("ARTIFACT_KIND_").lower()
    told = {"task_type": task_type, "kind": kind, "digest": artifact.digest, "files": files, **about}
    draft = folder / f"{MANIFEST}.part"
    draft.write_text(json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")
    draft.replace(folder / MANIFEST)
