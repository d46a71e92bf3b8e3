"""What a job of the suite left, as files in a script's ``output_dir``; it starts nothing and decides nothing.

`<output_dir>/task-type=<type>/<job>/` holds the weights with their manifest, as `sluice models pull` leaves them,
`train.log`, `steps.jsonl` with the figures of each step, `job.json` with what was asked and what came of it, and event
files for TensorBoard.
"""

from __future__ import annotations

import json
from pathlib import Path

from google.protobuf.json_format import MessageToJson

from kit.rpc.errors import Denied
from sluice.client import Client, boards, exports
from sluice.compat.said import say
from sluice.registry import v1 as registry
from sluice.rows.profile.report import PlotsMissingError
from sluice.trainer import v1 as trainer


def write_record(client: Client, job: trainer.TrainingJob, output_dir: Path) -> Path:
    """Writes log, figures and the job itself, and returns their folder; a job that failed has them as well."""
    folder = exports.folder_of(output_dir, job.spec.task_type, job.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.log").write_text("".join(client.jobs.logs(job.name)), "utf-8")
    (folder / "job.json").write_text(MessageToJson(job, preserving_proto_field_name=True), "utf-8")
    steps = client.jobs.steps(job.name)
    lines = ({"step": each.step, "evaluation": each.evaluation, **each.figures} for each in steps)
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    try:
        boards.write_events(output_dir, job, steps)
    except PlotsMissingError as missing:
        say(f"no event files were written: {missing}")
    return folder


def write_weights(client: Client, version: registry.ModelVersion, output_dir: Path) -> Path:
    """Writes the weights of a version beside what else its job left, and returns the folder; what broke off goes on.

    Raises Denied, saying what the key lacks and where the weights are.
    """
    try:
        return client.models.pull(version.name, output_dir)
    except Denied as denied:
        raise Denied(
            f"the weights stay in the suite as `{version.name}`, all else is in `{output_dir}`: {denied.message}",
            reason=denied.reason,
        ) from None
