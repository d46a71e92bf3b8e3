"""Checks that the contract still speaks to everybody who speaks to ``main`` (or, on main, to the commit before)."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
sys.path.insert(0, str(PROTOS))
from generate import IMAGE, ROOT, compile_image  # noqa: E402


def baseline() -> str:
    """The commit to compare with; empty in a checkout that has no other."""
    head = _git("rev-parse", "HEAD")
    for name in ("origin/main", "main"):
        commit = _git("rev-parse", "--verify", "--quiet", name)
        if commit and commit != head:
            return _git("merge-base", head, commit)
    return _git("rev-parse", "--verify", "--quiet", "HEAD~1")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> int:
    """Runs ``buf breaking``; 0 when nothing breaks."""
    commit = baseline()
    if not commit:
        sys.stdout.write("buf breaking: this checkout has no earlier commit to compare with\n")
        return 0
    archive = subprocess.run(["git", "archive", commit, "protos"], cwd=ROOT, capture_output=True, check=False).stdout
    if not archive:
        sys.stdout.write(f"buf breaking: {commit[:10]} has no contract to compare with\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        before = Path(folder) / "before.binpb"
        compile_image(Path(folder) / "protos", before)
        buf = [str(Path(sys.executable).with_name("buf")), "breaking", str(IMAGE), "--against", str(before)]
        return subprocess.run([*buf, "--config", str(ROOT / "buf.yaml"), "--path", "sluice"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
