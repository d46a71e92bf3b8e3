"""Rules of the house that a machine can see: who imports whom, no leftovers, nothing of this machine in a file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("sluice", "kit", "services", "tasks", "protos")
MAX_FILE, MAX_FUNCTION = 250, 50


def tracked(*patterns):
    """The files of the repository that match, as git knows them: those not ignored, committed or not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()]


def sources():
    return [path for path in tracked("*.py") if path.relative_to(ROOT).parts[0] in CODE]


def test_imports_keep_to_their_layers():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_nothing_is_left_for_later():
    words = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"])
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked("*.py", "*.proto", "*.md", "*.yaml", "*.toml", "Makefile")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(rf"\b({words})\b", line)
    ]
    assert found == []


def test_only_the_command_line_prints():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        if not path.is_relative_to(ROOT / "sluice" / "cli")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if "noqa: T201" not in path.read_text("utf-8").splitlines()[node.lineno - 1]
    ]
    assert found == []


def test_no_exception_is_swallowed_whole():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(each, ast.Pass) for each in node.body)
        if node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
    ]
    assert found == []


def test_no_file_knows_this_machine():
    here = re.compile(rf"{re.escape(str(ROOT))}|(?<![\w.])/(home|Users|work|opt/wheels|root)/[A-Za-z]")
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked()
        if path.suffix not in (".png", ".bin", ".binpb") and path != Path(__file__).resolve()
        if (match := here.search(path.read_text("utf-8", "replace")))
    ]
    assert found == []


def test_modules_say_what_they_are():
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if "migrations" not in path.parts and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert silent == []


def test_each_test_file_has_a_name_of_its_own():
    """pytest takes two of one name for the same module, and collects neither."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_sizes_are_reported():
    """Never fails: a long file or function is usually two things, but a limit would be gamed."""
    for path in sources():
        text = path.read_text("utf-8")
        name, lines = path.relative_to(ROOT), len(text.splitlines())
        if lines > MAX_FILE:
            sys.stdout.write(f"{name}: {lines} lines\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    sys.stdout.write(f"{name}:{node.lineno} {node.name}: {length} lines\n")
