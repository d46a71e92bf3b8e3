"""Compiles the contract whenever pip or uv builds or installs the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileContract(BuildHookInterface):
    """Runs ``protos/generate.py`` in the build environment, which has protoc."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        subprocess.run([sys.executable, str(Path(self.root) / "protos" / "generate.py")], check=True)
