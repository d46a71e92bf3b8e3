"""The operators and functions that expressions may use, each as what Polars does for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import polars as pl
from sqlglot import exp

from sluice.rows.demands.views import Kind

TEXT, NUMBER, TRUTH = Kind.TEXT, Kind.NUMBER, Kind.TRUTH


class Rule(NamedTuple):
    """An operator or function: the kinds it takes, one for each operand; what it gives; how."""

    takes: tuple[Kind, ...]
    gives: Kind
    make: Callable[..., pl.Expr]


def _finite(made: pl.Expr) -> pl.Expr:
    """Null for what is no number: infinite by overflow, or by a division by zero."""
    return made.replace([math.inf, -math.inf, math.nan], None)


#: Chains, which are made at once: as deep as they are long, they would be too deep.
CHAINS: dict[type[exp.Expr], Callable[[Sequence[pl.Expr]], pl.Expr]] = {
    exp.And: pl.all_horizontal,
    exp.Or: pl.any_horizontal,
}
RULES: dict[type[exp.Expr], Rule] = {
    exp.Not: Rule((TRUTH,), TRUTH, lambda a: ~a),
    exp.Add: Rule((NUMBER, NUMBER), NUMBER, lambda a, b: _finite(a + b)),
    exp.Sub: Rule((NUMBER, NUMBER), NUMBER, lambda a, b: _finite(a - b)),
    exp.Mul: Rule((NUMBER, NUMBER), NUMBER, lambda a, b: _finite(a * b)),
    exp.Div: Rule((NUMBER, NUMBER), NUMBER, lambda a, b: _finite(a / b)),
    exp.Mod: Rule((NUMBER, NUMBER), NUMBER, lambda a, b: _finite(a % b)),
    exp.Neg: Rule((NUMBER,), NUMBER, lambda a: -a),
    exp.Length: Rule((TEXT,), NUMBER, lambda a: a.str.len_chars().cast(pl.Float64)),
    exp.Lower: Rule((TEXT,), TEXT, lambda a: a.str.to_lowercase()),
    exp.Upper: Rule((TEXT,), TEXT, lambda a: a.str.to_uppercase()),
    exp.Trim: Rule((TEXT,), TEXT, lambda a: a.str.strip_chars()),
    exp.Contains: Rule((TEXT, TEXT), TRUTH, lambda a, b: a.str.contains(b, literal=True)),
    exp.StartsWith: Rule((TEXT, TEXT), TRUTH, lambda a, b: a.str.starts_with(b)),
    exp.EndsWith: Rule((TEXT, TEXT), TRUTH, lambda a, b: a.str.ends_with(b)),
    exp.DPipe: Rule((TEXT, TEXT), TEXT, lambda a, b: a + b),
}
COMPARISONS: dict[type[exp.Expr], Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    exp.EQ: lambda a, b: a == b,
    exp.NEQ: lambda a, b: a != b,
    exp.GT: lambda a, b: a > b,
    exp.GTE: lambda a, b: a >= b,
    exp.LT: lambda a, b: a < b,
    exp.LTE: lambda a, b: a <= b,
}
#: The arguments of each that are read, as sqlglot names them; a node with another one is refused, not misunderstood.
READ: dict[type[exp.Expr], Collection[str]] = {
    **{each: ("this", "expression")[: len(rule.takes)] for each, rule in RULES.items()},
    **dict.fromkeys((*COMPARISONS, *CHAINS), ("this", "expression")),
    exp.DPipe: ("this", "expression", "safe"),
    exp.Paren: ("this",),
    exp.Column: ("this", "table", "db", "catalog"),
    exp.Literal: ("this", "is_string"),
    exp.Boolean: ("this",),
    exp.Like: ("this", "expression", "negate"),
    exp.ILike: ("this", "expression", "negate"),
    exp.RegexpLike: ("this", "expression"),
    exp.In: ("this", "expressions", "query", "unnest", "field"),
    exp.Between: ("this", "low", "high"),
    exp.Is: ("this", "expression", "negate"),
    exp.Case: ("this", "ifs", "default"),
    exp.If: ("this", "true", "false"),
    exp.Coalesce: ("this", "expressions", "is_nvl", "is_null"),
    exp.Concat: ("expressions", "safe"),
}
_NAMES = "coalesce concat contains ends_with if length lower regexp_like starts_with trim upper"
FUNCTIONS = _NAMES.split()
#: For people who ask for something else.
MAY = (
    f"and, or, not, = <> < <= > >=, + - * / %, ||, like, ilike, in (…), between, is null, case, {', '.join(FUNCTIONS)}"
)
