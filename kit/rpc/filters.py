"""Filters as AIP-160 has them, as far as they go here: text in, a tree of conditions out; it selects nothing itself.

    state = "READY" AND NOT task_type = sft
    诊断 "bank card" radiol* (tags.language = zh OR tags:reviewed) -modalities:audio create_time > 2026-01-31T08:00:00Z

What stands side by side must hold together, as with AND; OR binds closer than AND, as in AIP-160. A map's entry that
is not there equals nothing and differs from nothing: `tags.a != x` wants a tag `a`, `NOT tags.a = x` does not.
Functions, wildcards in values and fields on the right are not read.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from kit.rpc.errors import Invalid
from sluice.errors import v1 as errors

MAX_LENGTH = 1000
MAX_CONDITIONS = 50
MAX_DEPTH = 10
QUOTED = r"""(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
TOKEN = re.compile(
    rf"""\s*(?:{QUOTED}|(?P<op>!=|<=|>=|[=<>:])|(?P<open>\()|(?P<close>\))|(?P<minus>-(?=[^\s)]))"""
    r"""|(?P<word>[^\s()"',:=<>!]+)|(?P<bad>\S))""",
    re.DOTALL,
)
#: After a comparison more may stand without quotes: times have colons, names have dashes.
VALUE = re.compile(rf"""\s*(?:{QUOTED}|(?P<word>[^\s()"',=<>!]+)|(?P<bad>["']))""", re.DOTALL)
KEYWORDS = ("AND", "OR", "NOT")
FORM = 'write it as `field = "value" AND other != "value"`'
#: Neither store takes these: what no text can hold.
IMPOSSIBLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Condition:
    """One comparison by ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``; ``:`` is "a list has it" and ``*`` "it is there".

    ``key`` is the entry of a map that is meant; without one, ``*`` asks for any.
    """

    field: str
    op: str
    value: str = ""
    key: str = ""


@dataclass(frozen=True)
class Text:
    """Words that stand in a row in the text of a resource; ``prefix``: of the last one only the beginning is given."""

    words: str
    prefix: bool = False


@dataclass(frozen=True)
class Not:
    """What must not hold."""

    part: Node


@dataclass(frozen=True)
class And:
    """What must all hold."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Or:
    """Of which one must hold."""

    parts: tuple[Node, ...]


Node = Condition | Text | Not | And | Or


class Fields(NamedTuple):
    """What a resource is filtered by: fields of one value, maps, lists, and whether its text is searched."""

    plain: Collection[str]
    maps: Collection[str] = ()
    lists: Collection[str] = ()
    text: bool = False

    @property
    def words(self) -> str:
        """All of them, for a sentence."""
        named = [*self.plain, *(f"{name}.key" for name in self.maps), *self.lists]
        return ", ".join(f"`{name}`" for name in sorted(named)) or "none"


def parse(text: str, fields: Fields) -> Node | None:
    """What a filter asks for; None for an empty filter.

    Raises Invalid (INVALID_FILTER) when the text does not parse or names what cannot be filtered by.
    """
    if len(text) > MAX_LENGTH:
        raise wrong(f"filter is longer than {MAX_LENGTH} characters", "ask for less at a time")
    if IMPOSSIBLE.search(text):
        raise wrong("filter has a NUL or half a character in it", "take it out")
    if not text.strip():
        return None
    parser = _Parser(text.rstrip(), fields)
    tree = parser.expression(0)
    if parser.kind:
        raise wrong("filter has a `)` without its `(`", "add the other one, or quote it")
    return tree


def wrong(what: str, repair: str = FORM) -> Invalid:
    """For a filter that cannot be answered; ``what`` says why, ``repair`` what to do."""
    return Invalid(f"{what}; {repair}", reason=errors.ERROR_REASON_INVALID_FILTER, violations=[("filter", what)])


class _Parser:
    """Recursive descent over one text; ``kind`` and ``token`` are what comes next, empty at the end."""

    def __init__(self, text: str, fields: Fields) -> None:
        self.text = text
        self.fields = fields
        self.at = 0
        self.count = 0
        self.kind = self.token = ""
        self._next(TOKEN)

    def expression(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise wrong(f"filter has more than {MAX_DEPTH} parentheses in one another", "ask for less at a time")
        parts = [self._factor(depth)]
        while self.kind not in ("", "close"):
            if self._is("AND"):
                self._next(TOKEN)
            parts.append(self._factor(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _factor(self, depth: int) -> Node:
        parts = [self._term(depth)]
        while self._is("OR"):
            self._next(TOKEN)
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _term(self, depth: int) -> Node:
        if self._is("NOT") or self.kind == "minus":
            self._next(TOKEN)
            return Not(self._simple(depth))
        return self._simple(depth)

    def _simple(self, depth: int) -> Node:
        if self.kind == "open":
            self._next(TOKEN)
            inner = self.expression(depth + 1)
            if self.kind != "close":
                raise wrong("filter has a `(` without its `)`", "add the other one, or quote it")
            self._next(TOKEN)
            return inner
        kind, token = self.kind, self.token
        if kind not in ("word", "quoted") or any(self._is(keyword) for keyword in KEYWORDS):
            raise wrong(f"filter has `{token}` where a condition should stand" if kind else "filter ends too early")
        self.count += 1
        if self.count > MAX_CONDITIONS:
            raise wrong(f"filter has more than {MAX_CONDITIONS} conditions", "ask for less at a time")
        self._next(TOKEN)
        if self.kind == "op" and kind == "word":
            return self._condition(token)
        return self._text(kind, token)

    def _text(self, kind: str, token: str) -> Node:
        if kind == "word" and self.kind == "open" and self.text[self.at - 2] == token[-1]:
            raise wrong(f"filter calls `{token}`, and there are no functions")
        if not self.fields.text:
            raise wrong(f"filter has `{token}` without a comparison, and is not of the form field = value")
        if kind == "quoted":
            return Text(_unquoted(token))
        words, star = token.removesuffix("*"), token.endswith("*")
        if "*" in words:
            raise wrong(f"filter has `{token}`, and a `*` stands at the end of a word only", "write it as `begin*`")
        return Text(words, star)

    def _condition(self, name: str) -> Condition:
        op, fields = self.token, self.fields
        field, _, key = name.partition(".")
        known = name in (*fields.plain, *fields.maps, *fields.lists) or (field in fields.maps and key)
        if not known:
            repair = f"{FORM}{', or quote it to look for its words' if fields.text else ''}"
            raise wrong(f"filter names `{name}`, which cannot be filtered by; what can be is {fields.words}", repair)
        self._next(VALUE)
        quoted, value = self.kind == "quoted", self.token
        if not self.kind or (not quoted and value in KEYWORDS):
            raise wrong(f"filter compares `{name}` with nothing, and is not of the form field = value")
        if not quoted and "*" in value and (value, op) != ("*", ":"):
            raise wrong(f"filter has `{value}`, and values have no wildcards", "quote it if the `*` itself is meant")
        self._next(TOKEN)
        there = not quoted and value == "*"
        value = _unquoted(value) if quoted else value
        if name in fields.plain:
            if there:
                raise wrong(f"filter asks whether `{name}` is there, which it always is", "leave that out")
            return Condition(name, "=" if op == ":" else op, value)
        if name in fields.lists:
            if op != ":":
                raise wrong(f"filter compares `{name}`, which is a list", f"write `{name}:value`")
            return Condition(name, "*" if there else ":", "" if there else value)
        return self._entry(field, key, op, value, there)

    def _entry(self, field: str, key: str, op: str, value: str, there: bool) -> Condition:
        if (not key and op != ":") or op not in ("=", "!=", ":"):
            raise wrong(
                f"filter compares `{field}`, which is a map", f'write `{field}.key = "value"`, `!=`, or `{field}:key`'
            )
        if not (key or value):
            raise wrong(f"filter asks for an entry of `{field}` without a name", f"write `{field}:key`")
        if not key:
            return Condition(field, "*", key="" if there else value)
        return Condition(field, "*", key=key) if there else Condition(field, "=" if op == ":" else op, value, key)

    def _is(self, keyword: str) -> bool:
        return self.kind == "word" and self.token == keyword

    def _next(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        self.kind, self.token = "", ""
        if found is None:
            return
        self.kind = str(found.lastgroup)
        self.token, self.at = found.group(self.kind), found.end()
        if self.kind == "bad":
            what = "a quote that does not end" if self.token in "\"'" else f"`{self.token}`, which stands for nothing"
            raise wrong(f"filter has {what}, and is not of the form field = value")


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
