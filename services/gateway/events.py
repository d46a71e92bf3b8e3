"""What the gateway does when the registry says that a version may serve, or may no longer."""

from __future__ import annotations

from kit.bus import Handlers
from kit.store import Unit
from services.gateway import commands
from sluice.events import v1 as events
from sluice.registry import v1 as registry


async def model_version_approved(unit: Unit, event: events.Event, data: registry.ModelVersionApproved) -> None:
    """Lines the version up; before it gets traffic the supervisor reads the approval back."""
    await commands.let_in(unit, data.model_version, data.endpoint)


async def model_version_revoked(unit: Unit, event: events.Event, data: registry.ModelVersionRevoked) -> None:
    """Takes the traffic away in this very unit."""
    await commands.revoke_version(unit, data.model_version)


HANDLERS: Handlers = {
    registry.ModelVersionApproved: model_version_approved,
    registry.ModelVersionRevoked: model_version_revoked,
}
