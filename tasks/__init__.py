"""The built-in task types and gate policies, as data: one YAML file each. Nothing here runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent


def task_types() -> dict[str, dict[str, Any]]:
    """Every built-in task type by name, each as the fields of ``sluice.registry.v1.TaskType``."""
    return _read(FOLDER)


def gate_policies() -> dict[str, dict[str, Any]]:
    """Every built-in gate policy by id, each as the fields of ``sluice.registry.v1.GatePolicy``."""
    return _read(FOLDER / "gates")


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in sorted(folder.glob("*.yaml"))}
