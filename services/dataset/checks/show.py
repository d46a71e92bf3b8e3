"""Images shown as PNG, one after the other, in the checking process."""

from __future__ import annotations

from services.dataset.checks import wire
from services.dataset.checks.child import Wire


def show(task: wire.Show, wires: Wire) -> None:
    """Works until the service is gone."""
    from sluice.rows.media import UndecodableError, as_png

    while True:
        job, content = wires.job()
        try:
            wires.send(wire.ASIDE, as_png(content, job.frame))
        except UndecodableError as error:
            wires.send(wire.DONE, wire.encode(wire.Refused(error.found, error.repair)))
