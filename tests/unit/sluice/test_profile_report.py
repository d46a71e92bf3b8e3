"""The page of the numbers: on its own, safe, quiet about rows, in two languages."""

import re
import sys
from html.parser import HTMLParser

import pyarrow as pa
import pytest

from sluice.rows.profile import Duplicates, Statistics, find_duplicates, statistics
from sluice.rows.profile.report import PlotsMissingError, percent, report
from sluice.rows.profile.words import WORDS

SECRET = "Mrs Lovelace has a fracture of the left wrist"
ROWS = pa.table(
    {
        "text": [f"{SECRET} {number} " + "x" * (number * number % 5000) for number in range(300)],
        "label": ["<script>alert(1)</script>" if number % 3 else "骨折" for number in range(300)],
        "split": ["train"] * 250 + ["test"] * 50,
    }
)


@pytest.fixture(scope="module")
def found() -> tuple[Statistics, Duplicates]:
    return statistics([ROWS]), find_duplicates([ROWS])


class Page(HTMLParser):
    """Its tags, and whether they are closed in order."""

    VOID = ("meta", "br", "path", "rect", "use", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("lang", ["en", "zh_CN.UTF-8"])
def test_a_page_on_its_own(found, lang):
    page = report(found[0], duplicates=found[1], title="chest-xray <3", lang=lang)
    parsed = Page(page)
    assert parsed.open == []
    assert not {"script", "link", "img", "iframe"} & set(parsed.tags)
    assert parsed.tags.count("svg") >= 1
    assert len(set(parsed.ids)) == len(parsed.ids)
    without_names = re.sub(r'xmlns(:\w+)?="[^"]+"', "", page)
    assert "://" not in without_names
    assert "url(" not in without_names.replace("url(#", "")
    assert "chest-xray &lt;3" in page
    assert "&lt;script&gt;" in page
    assert "骨折" in page
    words = WORDS["zh" if lang.startswith("zh") else "en"]
    for word in ("splits", "lengths", "labels", "languages", "twins", "leaked"):
        assert words[word] in page
    assert "#0102" not in page


def test_rows_are_shown_only_when_asked(found):
    assert SECRET not in report(found[0], duplicates=found[1], title="t")
    assert SECRET + " 1 &amp;" in report(found[0], title="t", previews=[SECRET + " 1 & more"])


def test_the_same_numbers_give_the_same_page(found):
    assert report(found[0], title="t") == report(found[0], title="t")


def test_a_dataset_of_nothing():
    empty = ROWS.slice(0, 0)
    page = report(statistics([empty]), duplicates=find_duplicates([empty]), title="t")
    assert Page(page).open == []


def test_labels_that_are_not_shown_are_counted():
    names = [f"label {number:02}" for number in range(40) for _ in range(100 - number)]
    table = pa.table({"text": names, "label": names, "split": ["train"] * len(names)})
    page = report(statistics([table], language_sample=0), title="t")
    assert "label 24" in page
    assert "label 25" not in page
    rest = sum(100 - number for number in range(25, 40))
    assert f'{WORDS["en"]["rest"]}</th><td class="n">{rest:,}</td>' in page


def test_both_languages_say_the_same_things():
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    slots = {lang: {key: set(re.findall(r"{\w+}", text)) for key, text in said.items()} for lang, said in WORDS.items()}
    assert slots["en"] == slots["zh"]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0001, "< 0.1 %"), (0.1234, "12.3 %"), (0.99999, "> 99.9 %"), (1, "100 %")],
)
def test_percentages_call_little_not_nothing(share, text):
    assert percent(share) == text


def test_without_the_libraries_it_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotsMissingError, match=r"install `sluice\[report\]`"):
        report(found[0], title="t")
