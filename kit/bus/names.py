"""What events, subjects, streams and durables are called, and the way back from an event's type to its message."""

from collections.abc import Iterable

from google.protobuf.message import Message

from kit.store.unit import event_type

DEAD_STREAM = "SLUICE_DEAD"


def type_of(message: type[Message]) -> str:
    """`sluice.trainer.v1.training_job.succeeded` for TrainingJobSucceeded; also its subject on the bus."""
    return event_type(message)


def source_of(event_type: str) -> str:
    """The service that says so: `trainer` of `sluice.trainer.v1.training_job.succeeded`; empty for anything else."""
    parts = event_type.split(".")
    return parts[1] if len(parts) == 5 and parts[0] == "sluice" else ""


def stream_of(service: str) -> str:
    """The stream with the events of a service: `SLUICE_TRAINER`."""
    return f"SLUICE_{service.upper()}"


def subjects_of(service: str) -> str:
    """All subjects a service publishes its events on."""
    return f"sluice.{service}.v1.>"


def dead_subject(service: str) -> str:
    """Where a consumer puts what it cannot handle."""
    return f"sluice.dead.{service}"


def replay_subject(service: str) -> str:
    """Where dead letters go to be tried again by that consumer and no other."""
    return f"sluice.replay.{service}"


def sources(messages: Iterable[type[Message]]) -> dict[str, list[str]]:
    """The event types to consume, by the service that sends them."""
    found: dict[str, list[str]] = {}
    for event in sorted(type_of(message) for message in messages):
        found.setdefault(source_of(event), []).append(event)
    return found
