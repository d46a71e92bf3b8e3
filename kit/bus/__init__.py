"""Events between services: outbox to broker, broker to inbox, and the ways back after a loss; it knows no event."""

from kit.bus.connection import Bus, Retention
from kit.bus.consumer import Consumer, consumed_services
from kit.bus.dead_letters import DeadLetter, letters, replay
from kit.bus.event_servicer import EventServicer, Sift
from kit.bus.inbox import Handler, Handlers
from kit.bus.inlets import Inlets, OutsideEvent
from kit.bus.nats_server import Credentials, find_binary, write_config
from kit.bus.reconciler import Reconciler
from kit.bus.relay import Relay

__all__ = [
    "Bus",
    "Consumer",
    "Credentials",
    "DeadLetter",
    "EventServicer",
    "Handler",
    "Handlers",
    "Inlets",
    "OutsideEvent",
    "Reconciler",
    "Relay",
    "Retention",
    "Sift",
    "consumed_services",
    "find_binary",
    "letters",
    "replay",
    "write_config",
]
