"""Violations in other languages than English, clause by clause; a clause that is not known stays as it is.

They travel in English, as they are stored and as programs read them. A catalog has the templates of their clauses,
such as `a list of {}`, in the format of gettext; it is read when it is first asked for.
"""

import ast
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

LANGUAGES = ("zh",)
_ENTRY = re.compile(r'^msgid (".+")\nmsgstr (".+")$', re.MULTILINE)
_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")


class _Pattern(NamedTuple):
    """What a clause with data in it looks like, and its translation."""

    clause: re.Pattern[str]
    translation: str


def language(environment: Mapping[str, str] = os.environ) -> str:
    """The language that people have set, such as `zh`; empty for English and for any without a catalog."""
    wanted = next((environment[name] for name in _VARIABLES if environment.get(name)), "")
    return next((name for name in LANGUAGES if re.match(rf"{name}(?![a-z])", wanted)), "")


def translated(clause: str, to: str) -> str:
    """A clause in a language of LANGUAGES, or in English where that is empty."""
    if not to:
        return clause
    whole, patterns = _catalog(to)
    if clause in whole:
        return whole[clause]
    for pattern in patterns:
        if found := pattern.clause.fullmatch(clause):
            return pattern.translation.format(*(_listed(each, whole) for each in found.groups()))
    return clause


def _listed(data: str, whole: Mapping[str, str]) -> str:
    """What stands in a clause, where it is itself something known, or several with commas between."""
    return ", ".join(whole.get(each, each) for each in data.split(", "))


def said(template: str, *data: object, to: str) -> str:
    """A template of the catalog with its data in a language, or in English where that is empty."""
    return (_templates(to).get(template, template) if to else template).format(*data)


@cache
def _templates(to: str) -> dict[str, str]:
    """The catalog as it is written."""
    content = files(__package__).joinpath(f"{to}.po").read_text("utf-8")
    return {ast.literal_eval(english): ast.literal_eval(other) for english, other in _ENTRY.findall(content)}


@cache
def _catalog(to: str) -> tuple[dict[str, str], list[_Pattern]]:
    """Clauses without data, and patterns of the others, those with the most words first."""
    whole, patterns = {}, []
    for english, other in sorted(_templates(to).items(), key=lambda each: -len(each[0])):
        pieces = [re.escape(piece.replace("{{", "{").replace("}}", "}")) for piece in english.split("{}")]
        if len(pieces) == 1:
            whole[english.format()] = other.format()
        else:
            patterns.append(_Pattern(re.compile("(.+?)".join(pieces), re.DOTALL), other))
    return whole, patterns
