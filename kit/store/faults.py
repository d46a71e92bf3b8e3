"""What database drivers say, told as the faults a caller may read; their own words stay in the cause and the log."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from kit.rpc.errors import AlreadyExists, Corrupt, Exhausted, Fault, Unavailable
from sluice.errors import v1 as errors


class Contended(Unavailable):
    """Another transaction was in the way and nothing was changed; the same work may be done again at once."""


_FULL = {"SQLITE_FULL", "53100", "53200"}
_CONTENDED = {"40001", "40P01", "55P03"}
_CORRUPT = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "XX001", "XX002"}
_UNIQUE = {"23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}


def as_fault(error: BaseException) -> Fault | None:
    """The fault a driver's error stands for; None where it is a mistake of ours, such as wrong SQL."""
    if isinstance(error, PoolTimeout):
        return Unavailable("the database has no free connection; repeat in a moment", retry_after_s=1.0)
    if isinstance(error, ConnectionError):
        return Unavailable("the database does not answer; check that it runs, then repeat", retry_after_s=2.0)
    if not isinstance(error, DBAPIError):
        return None
    code = _code(error)
    if code in _FULL:
        return Exhausted("the database is full; free disk space, then repeat", reason=errors.ERROR_REASON_STORAGE_FULL)
    if code in _CONTENDED or code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Contended("the database is busy; repeat in a moment", retry_after_s=0.2)
    if code in _CORRUPT or code.startswith("SQLITE_CORRUPT"):
        return Corrupt("the database file is damaged; restore it from a backup")
    if code == "3D000":
        return Unavailable("the database does not exist; create it, or correct SLUICE_DATABASE_URL")
    if code.startswith("28"):
        return Unavailable("the database refuses the user or password; correct SLUICE_DATABASE_URL")
    if code in _UNIQUE:
        return AlreadyExists("a row with the same key exists")
    if error.connection_invalidated or code.startswith(("08", "57P", "53", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return Unavailable("the database does not answer; check that it runs, then repeat", retry_after_s=2.0)
    if code == "SQLITE_READONLY" or code.startswith("SQLITE_READONLY"):
        return Unavailable("the database cannot be written; check the rights of its file and folder")
    return None


def _code(error: DBAPIError) -> str:
    """PostgreSQL's SQLSTATE or SQLite's name of the error; empty when the driver gave neither."""
    original = error.orig
    return str(getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None) or "")


@contextmanager
def sanitized() -> Iterator[None]:
    """Lets faults through as they are and turns driver errors into faults; everything else is a bug and passes."""
    try:
        yield
    except (SQLAlchemyError, ConnectionError) as error:
        fault = as_fault(error)
        if fault is None:
            raise
        raise fault from error


@contextmanager
def connecting() -> Iterator[None]:
    """``sanitized`` around opening a connection, where any OSError means that the database is not there."""
    with sanitized():
        try:
            yield
        except OSError as error:
            raise ConnectionError from error
