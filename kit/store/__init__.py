"""The SQL store of a service: units, reads, resources, kept answers and migrations; it knows no table of a service."""

from kit.store import text_index
from kit.store.alone import alone
from kit.store.database import Database, utc_now
from kit.store.failpoints import failpoint
from kit.store.faults import Contended
from kit.store.leading import Leadership, leading
from kit.store.migrate import check, migrate
from kit.store.resources import ResourceRow, Resources
from kit.store.signals import Signal, watch
from kit.store.tables import BookmarkRow, InboxRow, OutboxRow, RequestRow, UtcTime
from kit.store.text_index import SearchedRow
from kit.store.unit import Unit, event_type

__all__ = [
    "BookmarkRow",
    "Contended",
    "Database",
    "InboxRow",
    "Leadership",
    "OutboxRow",
    "RequestRow",
    "ResourceRow",
    "Resources",
    "SearchedRow",
    "Signal",
    "Unit",
    "UtcTime",
    "alone",
    "check",
    "event_type",
    "failpoint",
    "leading",
    "migrate",
    "text_index",
    "utc_now",
    "watch",
]
