"""How text is cut into what it is found by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.store import terms

OWN = {terms.BOUNDARY, terms.EVERYTHING, terms.FACT}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Chest X-ray_report", ["chest", "x", "ray", "report"]),
        ("Straße CAFÉ ﬁn", ["strasse", "café", "fin"]),
        ("诊断", ["诊断", "断"]),
        ("胸片诊断。", ["胸片", "片诊", "诊断", "断"]),
        ("GPT诊断,v2", ["gpt", "诊断", "断", "v2"]),
        ("ＡＢ１", ["ab1"]),
        ("カタｶﾀ", ["カタ", "タカ", "カタ", "タ"]),
        ("한국어", ["한국", "국어", "어"]),
        ("ภาษา", ["ภา", "าษ", "ษา", "า"]),
        ("𠮷野", ["𠮷野", "野"]),
        ("🚀 -- \0 '\"", []),
        ("x" * 130, ["x" * 64, "x" * 64, "xx"]),
    ],
)
def test_words_and_pairs(text: str, expected: list[str]) -> None:
    assert terms.document([text], [])[2:] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("诊断", (["诊断"], False)),
        ("胸片诊", (["胸片", "片诊"], False)),
        ("诊", (["诊"], True)),
        ("诊 x", (["诊", "x"], False)),
        ("X光", (["x", "光"], True)),
        ("", ([], False)),
    ],
)
def test_what_a_phrase_asks_for(text: str, expected: tuple[list[str], bool]) -> None:
    assert terms.phrase(text) == expected


@given(st.text())
def test_no_term_has_what_an_index_would_read_as_more_than_letters(text: str) -> None:
    for term in terms.document([text], [terms.fact("a", text)]):
        assert 0 < len(term) <= terms.MAX_TERM
        assert not any(char.isspace() or char in "\0\"'\\*:&|!()" for char in term)
        assert term[0] in (terms.BOUNDARY, terms.EVERYTHING, terms.FACT) or not set(term) & {
            "\ue000",
            "\ue001",
            "\ue002",
        }


def test_facts_of_other_fields_are_other_terms() -> None:
    made = {terms.fact(name, value) for name in ("a", "b", "a=") for value in ("1", "2", "")}
    assert len(made) == 9 and terms.fact("a", 1) in made
