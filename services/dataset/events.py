"""What the dataset service does when other services say that something happened: nothing yet."""

from __future__ import annotations

from kit.bus import Handlers

HANDLERS: Handlers = {}
