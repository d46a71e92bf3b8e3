"""A training job's steps as an event file for TensorBoard, without a host's name in it; it asks no service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sluice.rows.profile.report import PlotsMissingError
from sluice.trainer import v1 as trainer


def write_events(folder: Path, job: trainer.TrainingJob, steps: Sequence[trainer.TrainingStep]) -> Path:
    """Writes `<folder>/task-type=<type>/<job>/events.out.tfevents…`, whole; its tags begin with `task=<type>/`.

    PlotsMissingError where the extra `report` is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ModuleNotFoundError as error:
        raise PlotsMissingError("event files need tensorboard; install `sluice[report]`") from error

    task_type, began = job.spec.task_type, job.create_time.ToSeconds()
    path = folder / f"task-type={task_type}" / job.name.rsplit("/", 1)[-1] / f"events.out.tfevents.{began}.sluice"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        records = RecordWriter(file)
        # The version of the format, which the first record of a file says.
        records.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
        for step in steps:
            prefix = f"task={task_type}/{'eval_' if step.evaluation else ''}"
            values = [
                Summary.Value(tag=prefix + name, simple_value=step.figures[name]) for name in sorted(step.figures)
            ]
            event = Event(wall_time=step.time.ToNanoseconds() / 1e9, step=step.step, summary=Summary(value=values))
            records.write(event.SerializeToString())
        records.flush()
    return path
