"""Where the files of a job lie and what of them is wiped when; it reads none of them.

`jobs/<uuid>/` holds `lock`, `checkpoints/` for all attempts on this host, and a folder `<epoch>/` for each of them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from kit.rpc.names import id_of

#: What holds decrypted inputs, weights, prompts or tokens; the rest (logs, figures) stays.
INPUTS = ("in",)
OUTPUTS = ("out", "parity.jsonl", "tokens")
#: What an earlier start of the same attempt may have left and must not be taken for news.
STALE = ("progress.jsonl", "result.json", "control.json", "spec.json")


@dataclass(frozen=True)
class AttemptFolder:
    """The folder of one attempt, which is the job directory of its recipe."""

    path: Path

    @property
    def log(self) -> Path:
        """What the recipe prints."""
        return self.path / "log.txt"

    def create(self) -> None:
        """Makes an empty job directory (0700) that shares the checkpoints of the job; logs stay as they are."""
        checkpoints = self.path.parent / "checkpoints"
        for folder in (self.path.parent, checkpoints, self.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.wipe(*INPUTS, *OUTPUTS, *STALE)
        (self.path / "in").mkdir(mode=0o700)
        link = self.path / "checkpoints"
        if not link.is_symlink():
            link.symlink_to(Path("..") / "checkpoints", target_is_directory=True)

    def wipe(self, *names: str) -> None:
        """Removes files and folders of those names; raises OSError when one stays."""
        for name in names:
            _remove(self.path / name)


@dataclass(frozen=True)
class JobFolder:
    """The folder of a job on this host."""

    path: Path

    @classmethod
    def of(cls, jobs: Path, job: str) -> JobFolder:
        """The folder of the job named ``job`` below ``jobs``."""
        return cls(jobs / id_of(job))

    def attempt(self, epoch: int) -> AttemptFolder:
        """The folder of one attempt."""
        return AttemptFolder(self.path / str(epoch))

    def wipe(self, *, keep_checkpoints: bool) -> None:
        """Removes inputs and outputs of all attempts, and the checkpoints unless the job may need them again."""
        for folder in self.path.glob("[0-9]*"):
            AttemptFolder(folder).wipe(*INPUTS, *OUTPUTS)
        if not keep_checkpoints:
            _remove(self.path / "checkpoints")

    def try_lock(self) -> int | None:
        """An open file whose lock no other attempt on this host holds, to be inherited by the recipe; None if one does.

        The kernel lets go of it when the last process that holds it has gone, however it went.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return file


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
