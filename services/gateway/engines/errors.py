"""What can go wrong with an engine; knows no transport and renders no status code.

EngineError                a request about an engine cannot be met
├── NotReady               the engine does not answer yet, or did not come up in time
├── AdapterRejected        these adapter files will not be served; the engine is unharmed or was healed
├── WrongKind              the model is sound and of another kind than was asked for
├── Occupied               the same weights are served for another task here, and one host does one task with them
└── EngineLost             the engine that served this has gone; `ensure` brings it back
"""


class EngineError(Exception):
    """One sentence on what happened and one on the fix; never a prompt, a row or a key."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason} {fix}")
        self.reason = reason
        self.fix = fix


class NotReady(EngineError):
    """The engine does not answer yet, or never did within its time limit."""


class AdapterRejected(EngineError):
    """The adapter's files are incomplete, misfit the base, or give no finite answer."""


class WrongKind(EngineError):
    """The model cannot do what it is asked for, such as embed; trying again changes nothing."""


class Occupied(EngineError):
    """These weights are served for another task on this host; trying again changes nothing until they are not."""


class EngineLost(EngineError):
    """The engine process has died or stopped answering."""
