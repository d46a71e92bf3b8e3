"""Every kind and clause that `sluice.rows` may say of a row, read from its source as templates with `{}`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import sluice.rows

ROOT = Path(sluice.rows.__file__).parent
#: Where the kind stands among the arguments; expected, found and repair follow it.
SAID_BY = {"RefusedError": 1, "Violation": 2, "Trouble": 0, "RefusedArchiveError": 0, "UndecodableError": 0}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Scope:
    """A place in the source: its module, and the functions around it, the nearest first."""

    def __init__(self, module: ast.Module, around: tuple[Function, ...]) -> None:
        self.module = module
        self.around = around


@cache
def sources() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py")) if "profile" not in path.parts]


@cache
def calls() -> dict[str, list[tuple[ast.Call, Scope]]]:
    """Every call in the package, by the last part of what is called."""
    found: dict[str, list[tuple[ast.Call, Scope]]] = {}
    for module in sources():
        for node, scope in _walk(module, Scope(module, ())):
            if isinstance(node, ast.Call):
                found.setdefault(_name(node.func), []).append((node, scope))
    return found


@cache
def functions() -> dict[str, list[tuple[Function, Scope]]]:
    found: dict[str, list[tuple[Function, Scope]]] = {}
    for module in sources():
        for node, scope in _walk(module, Scope(module, ())):
            if isinstance(node, Function):
                found.setdefault(node.name, []).append((node, Scope(module, (node, *scope.around))))
    return found


def said() -> tuple[set[str], set[str]]:
    """All kinds, and all clauses. AssertionError for a source that says them in a way that is not understood here."""
    kinds: set[str] = set()
    clauses: set[str] = set()
    for name, first in SAID_BY.items():
        for call, scope in calls().get(name, []):
            given = [each for each in call.args if not isinstance(each, ast.Starred)]
            given += [each.value for each in call.keywords if each.arg in ("kind", "expected", "found", "repair")]
            if len(given) < first + 4:
                continue
            kinds |= templates(given[first], scope)
            for each in given[first + 1 : first + 4]:
                clauses |= templates(each, scope)
    return kinds - {""}, clauses - {"", "{}"}


def templates(node: ast.expr, scope: Scope, seen: frozenset[str] = frozenset()) -> set[str]:
    """What an expression may be, with `{}` where it depends on data."""
    match node:
        case ast.Constant(value=str(text)):
            return {text.replace("{", "{{").replace("}", "}}") if "{" in text else text}
        case ast.JoinedStr(values=values):
            parts = [templates(each, scope, seen) for each in values]
            return {"".join(each) for each in product(*parts)}
        case ast.FormattedValue():
            return {"{}"}
        case ast.IfExp(body=body, orelse=orelse):
            return templates(body, scope, seen) | templates(orelse, scope, seen)
        case ast.BoolOp(values=values):
            return set().union(*(templates(each, scope, seen) for each in values))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return {"".join(each) for each in product(templates(left, scope, seen), templates(right, scope, seen))}
        case ast.Name(id=name):
            return _named(name, scope, seen)
        case ast.Call(func=func) if _name(func) in functions() and _name(func) not in seen:
            found: set[str] = set()
            for function, inside in functions()[_name(func)]:
                for each in ast.walk(function):
                    if isinstance(each, ast.Return) and each.value is not None:
                        found |= templates(each.value, inside, seen | {_name(func)})
            return found
        case _:  # an attribute passes on what was said elsewhere; anything else is data
            return set() if isinstance(node, ast.Attribute) else {"{}"}


def _named(name: str, scope: Scope, seen: frozenset[str]) -> set[str]:
    found: set[str] = set()
    for function in scope.around:
        values = list(_assigned(name, function))
        if values:
            key = f"{function.name}:{name}"  # it may be given to itself
            inside = seen | {key}
            return set() if key in seen else set().union(*(templates(each, scope, inside) for each in values))
        arguments = [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        if name in arguments:
            key = f"{function.name}.{name}"
            if key in seen:
                return set()
            place = arguments.index(name) - (arguments[:1] == ["self"])
            for call, elsewhere in calls().get(function.name, []):
                given = [each.value for each in call.keywords if each.arg == name] or call.args[place : place + 1]
                for each in given:
                    found |= templates(each, elsewhere, seen | {key})
            return found
    for module in (scope.module, *sources()):
        values = list(_assigned(name, module))
        if values:
            return set().union(*(templates(each, Scope(module, ()), seen) for each in values))
    return {"{}"}


def _assigned(name: str, within: ast.AST) -> Iterator[ast.expr]:
    """What a name is given, also where several are at once."""
    for node in ast.walk(within) if isinstance(within, Function) else ast.iter_child_nodes(within):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            if node.value is not None:
                yield node.value
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    yield node.value
                elif isinstance(target, ast.Tuple):
                    yield from _of_several(name, target, node.value)


def _of_several(name: str, target: ast.Tuple, value: ast.expr) -> Iterator[ast.expr]:
    if isinstance(value, ast.IfExp):
        yield from _of_several(name, target, value.body)
        yield from _of_several(name, target, value.orelse)
    elif isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts):
        for each, given in zip(target.elts, value.elts, strict=True):
            if isinstance(each, ast.Name) and each.id == name:
                yield given


def _walk(node: ast.AST, scope: Scope) -> Iterator[tuple[ast.AST, Scope]]:
    for child in ast.iter_child_nodes(node):
        yield child, scope
        inside = Scope(scope.module, (child, *scope.around)) if isinstance(child, Function) else scope
        yield from _walk(child, inside)


def _name(func: ast.expr) -> str:
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
