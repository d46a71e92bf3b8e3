"""What the trainer does when other services say that something happened: nothing yet. Triggers will be here."""

from __future__ import annotations

from kit.bus import Handlers

HANDLERS: Handlers = {}
