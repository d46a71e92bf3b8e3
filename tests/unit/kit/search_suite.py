"""What any search must find: the one suite that SQLite and PostgreSQL both run, against filters evaluated by hand."""

from __future__ import annotations

import operator
import unicodedata
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import MetaData
from sqlalchemy import text as statement
from sqlmodel import Field

from kit.rpc.errors import Invalid
from kit.rpc.filters import And, Condition, Node, Not, Or, Text
from kit.store import Database, ResourceRow, Resources, SearchedRow, text_index
from sluice.dataset import v1 as dataset
from sluice.errors import v1 as errors


class BookRow(SearchedRow, ResourceRow, table=True):
    """A table as a service would have it; in no metadata that other tests compare with their database."""

    metadata = MetaData()
    __tablename__ = "suite_book"
    __table_args__ = text_index.indexes("suite_book")
    task_type: str = Field(index=True)


BOOKS = Resources(
    BookRow,
    dataset.Dataset,
    columns=lambda each: {"task_type": each.task_type},
    enums={"classification": dataset.Classification},
    texts=lambda each: [each.display_name, each.description, *(f"{key} {tag}" for key, tag in each.tags.items())],
    facts=("classification", "modalities", "tags", "task_type"),
)
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
LIBRARY = [
    ("Chest X-ray report", "胸片诊断报告,中文", "sft", {"domain": "medical", "language": "zh"}, ["text", "image"], 3),
    ("bank_intents", "Lost my card", "sft", {"domain": "bank", "language": "en"}, ["text"], 2),
    ("GPT-4 distilled", "诊 断 分开", "pretrain", {}, ["text"], 1),
    ("胸外科", "断诊 is the other way round; X光片", "dpo", {"language": "zh", "note": "chest x"}, ["audio"], 3),
    ("radiology", "Radiological report: chest, x rays", "dpo", {"domain": "medical"}, [], 2),
    ("", "🚀 naïve CAFÉ 100% _ * \" ' \\", "sft", {"domain": ""}, ["video", "text"], 2),
]
FOUND = [
    ("", "012345"),
    ("诊断", "0"),
    ("断", "023"),
    ("诊", "023"),
    ("胸", "03"),
    ("chest x", "034"),
    ('"chest x"', "034"),
    ('"report 胸片"', ""),
    ("radiol*", "4"),
    ("radiol", ""),
    ("tags.domain = medical AND (诊断 OR radiology)", "04"),
    ("tags:language -tags.language = zh", "1"),
    ("tags.language != zh", "1"),
    ("NOT tags.language = zh", "1245"),
    ("classification = SENSITIVE OR create_time < 2026-11-21T12:00:02Z", "013"),
    ("modalities:text task_type != sft", "2"),
    ("café", "5"),
    ("create_time < 2026-11-21T12:00:02Z", "01"),
    ("create_time > 2026-11-21T12:00:02Z -chest", "5"),
    ("create_time = 2026-11-21T13:00:02+01:00", "2"),
    ("create_time >= 2026-11-21 create_time > 2026-11-21T12:00:03Z", "45"),
    ("state = 0 task_type >= sft", "015"),
    ("state > 0 OR 诊断", "0"),
]
REFUSED = [
    ("state = 2147483648", "whole number of 32 bits"),
    ("state = 1_0", "whole number"),
    ("state = ３", "whole number"),
    ("classification > PUBLIC", "has no order"),
    ("create_time > yesterday", "RFC 3339"),
    ("🚀", "neither letter nor digit"),
    ("*", "neither letter nor digit"),
    ("revision = 1", "cannot be filtered by.*`tags.key`.*look for its words"),
]
WORDS = ["chest", "x", "X-ray", "诊断", "断", "诊", "胸片诊断", "report", "radiol", "gpt", "card", "zh", "光", "CAFÉ"]
PHRASES = ["chest x", "report 胸片", "诊 断", "lost my card", "language zh", "GPT 4", "x光", "medical language"]
LEAVES = st.one_of(
    st.builds(Text, st.sampled_from([*WORDS, *PHRASES]), st.booleans()),
    st.builds(
        Condition, st.just("task_type"), st.sampled_from(["=", "!=", "<", ">="]), st.sampled_from(["sft", "dpo", "e"])
    ),
    st.builds(
        Condition,
        st.just("tags"),
        st.sampled_from(["=", "!="]),
        st.sampled_from(["zh", "medical", "", "x"]),
        st.sampled_from(["domain", "language", "none"]),
    ),
    st.builds(Condition, st.just("tags"), st.just("*"), st.just(""), st.sampled_from(["", "domain", "note"])),
    st.builds(Condition, st.just("modalities"), st.just(":"), st.sampled_from(["text", "image", "none"])),
    st.just(Condition("modalities", "*")),
    st.builds(
        Condition,
        st.just("classification"),
        st.sampled_from(["=", "!="]),
        st.sampled_from(["PUBLIC", "SENSITIVE"]),
    ),
    st.builds(
        Condition,
        st.just("create_time"),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.integers(-1, len(LIBRARY)).map(lambda at: (START + timedelta(seconds=at)).isoformat()),
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
ORDERS = {"=": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
HOSTILE = [
    '" OR "', "'", '"', "\\", "a:*", "a & b", "!a", "NEAR(a b)", "a* b*", "%", "_", "--", "';--", "{terms}: a", "^a",
    "\ue001", "\ue000", "🚀", "诊" * 1000, "a " * 500, "x" * 1000, "\x01", "\u202e", "a\tb\nc", "(" * 11, "-", "- -",
    'tags.domain = "\' OR 1=1 --"', 'tags."domain" = a', "tags.é:*", "\ufffe", "a\x00b", "\ud800", "*", '""',
]  # fmt: skip


def written(tree: Node) -> str:
    """The tree as a filter, with a value in quotes and everything in parentheses."""

    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    match tree:
        case And(parts):
            return "(" + " AND ".join(map(written, parts)) + ")"
        case Or(parts):
            return "(" + " OR ".join(map(written, parts)) + ")"
        case Not(part):
            return f"(NOT {written(part)})"
        case Text(words, prefix):
            return f"{words}*" if prefix and " " not in words else quoted(words)
        case Condition(field, op, value, key):
            name = f"{field}.{key}" if key else field
            return f"{name}:*" if op == "*" else f"{name} {op} {quoted(value)}"


def atoms(text: str) -> list[tuple[str, bool]]:
    """Words, and characters of scripts without blanks, each with whether it is one run with what is before it."""
    found: list[tuple[str, bool]] = []
    glued = ""
    for char in unicodedata.normalize("NFKC", text).casefold():
        kind = "" if not char.isalnum() else "run" if "\u2e80" <= char <= "\u9fff" else "word"
        if kind == "word" and glued == "word":
            found[-1] = (found[-1][0] + char, False)
        elif kind:
            found.append((char, kind == "run" and glued == "run"))
        glued = kind
    return found


def contains(text: str, words: str, prefix: bool) -> bool:
    looked, there = atoms(words), atoms(text)
    for start in range(len(there) - len(looked) + 1):
        row = there[start : start + len(looked)]
        *firsts, last = ((a, b) for (a, _), (b, _) in zip(row, looked, strict=True))
        glue = all(a == b for (_, a), (_, b) in zip(row[1:], looked[1:], strict=True))
        end = last[0].startswith(last[1]) if prefix else last[0] == last[1]
        if glue and end and all(a == b for a, b in firsts):
            return True
    return False


def holds(tree: Node, book: dataset.Dataset) -> bool:
    """What a filter means, for one resource."""
    match tree:
        case And(parts):
            return all(holds(part, book) for part in parts)
        case Or(parts):
            return any(holds(part, book) for part in parts)
        case Not(part):
            return not holds(part, book)
        case Text(words, prefix):
            return any(contains(text, words, prefix and " " not in words) for text in BOOKS.search.texts(book))
        case Condition("tags", "*", _, key):
            return key in book.tags if key else bool(book.tags)
        case Condition("tags", op, value, key):
            return key in book.tags and getattr(operator, ORDERS[op])(book.tags[key], value)
        case Condition("modalities", op, value):
            return bool(book.modalities) if op == "*" else value in book.modalities
        case Condition("classification", op, value):
            return getattr(operator, ORDERS[op])(
                book.classification, dataset.Classification.Value(f"CLASSIFICATION_{value}")
            )
        case Condition("create_time", op, value):
            return getattr(operator, ORDERS[op])(book.create_time.ToDatetime(UTC), datetime.fromisoformat(value))
        case Condition(field, op, value):
            return getattr(operator, ORDERS[op])(getattr(book, field), value)


def book(name: str, **fields: object) -> dataset.Dataset:
    return dataset.Dataset(name=f"projects/p/datasets/{name}", **fields)


async def insert(database: Database, *books: dataset.Dataset) -> None:
    async with database.begin() as unit:
        for each in books:
            await BOOKS.insert(unit, each)


async def ids(database: Database, filter: str, parent: str = "projects/p", **more: object) -> list[str]:
    async with database.read() as session:
        found, _ = await BOOKS.page(session, parent=parent, filter=filter, **more)
    return [each.name.rsplit("/", 1)[1] for each in found]


class SearchSuite:
    """Subclasses give the fixture `url`: an empty database."""

    @pytest.fixture
    async def database(self, url):
        self.time = START
        opened = await Database.open(url, service="suite", clock=lambda: self.time)
        await opened.create_tables(BookRow.metadata)
        async with opened.engine.execution_options(writes=True).begin() as connection:
            await connection.run_sync(text_index.install, "suite_book")
        yield opened
        await opened.close()

    @pytest.fixture
    async def library(self, database):
        for at, (name, about, task_type, tags, modalities, classification) in enumerate(LIBRARY):
            self.time = START + timedelta(seconds=at)
            await insert(
                database,
                book(
                    f"b{at}",
                    display_name=name,
                    description=about,
                    task_type=task_type,
                    tags=tags,
                    modalities=modalities,
                    classification=classification,
                ),
            )
        async with database.read() as session:
            books, _ = await BOOKS.page(session)
        return books

    async def test_what_is_found(self, database, library):
        for filter, expected in FOUND:
            assert ("".join(name[1] for name in await ids(database, filter)), filter) == (expected, filter)

    async def test_what_is_refused_says_why(self, database):
        for filter, words in REFUSED:
            with pytest.raises(Invalid, match=words) as caught:
                await ids(database, filter)
            assert caught.value.reason == errors.ERROR_REASON_INVALID_FILTER

    @settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(TREES)
    @example(Or((Not(Text("诊断")), And((Condition("tags", "*", key="note"), Condition("task_type", ">=", "e"))))))
    async def test_a_filter_means_what_it_says(self, database, library, tree):
        filter = written(tree)
        try:
            expected = [each.name.rsplit("/", 1)[1] for each in library if holds(tree, each)]
            assert await ids(database, filter) == expected
            assert await ids(database, filter, "projects/-", newest_first=True) == expected[::-1]
        except Invalid as error:  # deeper or longer than may be
            assert "ask for less" in error.message

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(max_size=40))
    async def test_any_text_is_read_or_refused(self, database, library, text):
        for filter in (text, f"tags.a = {text}", f'display_name = "{text}"', f"create_time > {text}", f"-({text})"):
            with suppress(Invalid):
                await ids(database, filter)

    async def test_no_text_reaches_the_driver_as_an_order(self, database, library):
        for hostile in HOSTILE:
            quoted = '"' + hostile.replace("\\", "\\\\").replace('"', '\\"') + '"'
            for filter in (hostile, quoted, f"task_type = {quoted}", f"tags.domain = {quoted}", f"tags:{quoted}"):
                try:
                    assert len(await ids(database, filter)) < len(library), filter
                except Invalid as error:
                    assert error.reason == errors.ERROR_REASON_INVALID_FILTER

    async def test_an_update_and_a_deletion_are_found_at_once(self, database, library):
        async with database.begin() as unit:
            changed = await BOOKS.get(unit.session, "projects/p/datasets/b0")
            changed.description, changed.classification = "nothing of it", dataset.CLASSIFICATION_PUBLIC
            del changed.tags["language"]
            await BOOKS.update(unit, changed)
            await BOOKS.delete(unit, "projects/p/datasets/b3")
        assert (
            await ids(database, "诊断")
            == await ids(database, "胸外科")
            == await ids(database, "tags.language = zh")
            == []
        )
        assert await ids(database, "nothing classification = PUBLIC") == ["b0"]
        with suppress(KeyError):
            async with database.begin() as unit:
                await BOOKS.insert(unit, book("gone", description="unwritten"))
                raise KeyError
        assert await ids(database, "unwritten") == []

    async def test_pages_of_a_search_are_whole_and_stable(self, database):
        await insert(
            database,
            *(book(f"{number:03}", description="common even" if number % 2 else "common") for number in range(60)),
        )
        for filter, step in (("common", 1), ("even", 2), ("-even", 2), ("", 1)):
            for newest_first in (False, True):
                seen, token = [], ""
                while token or not seen:
                    async with database.read() as session:
                        page, token = await BOOKS.page(
                            session,
                            parent="projects/p",
                            filter=filter,
                            page_size=7,
                            page_token=token,
                            newest_first=newest_first,
                        )
                    seen += [each.name for each in page]
                assert len(seen) == len(set(seen)) == 60 // step
                assert seen == sorted(seen, reverse=newest_first)
        async with database.read() as session:
            _, token = await BOOKS.page(session, parent="projects/p", filter="common", page_size=7)
            for other in ("even", ""):
                with pytest.raises(Invalid) as caught:
                    await BOOKS.page(session, parent="projects/p", filter=other, page_size=7, page_token=token)
                assert caught.value.reason == errors.ERROR_REASON_INVALID_PAGE_TOKEN

    async def test_phrases_are_found_far_into_a_long_text(self, database):
        text = " ".join(f"w{number}" for number in range(20_000))
        await insert(
            database, book("long", display_name="long", description=text), book("short", display_name="w19999")
        )
        assert await ids(database, '"w19998 w19999"') == await ids(database, '"w16000 w16001"') == ["long"]
        assert await ids(database, '"w19999 w19998"') == []

    async def test_other_parents_are_not_searched(self, database, library):
        stranger = dataset.Dataset(name="projects/q/datasets/s", display_name="诊断", tags={"language": "zh"})
        await insert(database, stranger)
        assert await ids(database, "诊断 tags.language = zh") == ["b0"]
        for filter in ("", "诊断", "create_time > 2026-01-01", "NOT (诊断 OR create_time > 2026-01-01) OR 诊断"):
            assert await ids(database, filter, "projects/q") == ["s"]
        assert await ids(database, "诊断", "projects/-") == ["b0", "s"]

    async def test_the_index_can_be_made_anew_from_what_is_there(self, database, library):
        async with database.engine.execution_options(writes=True).begin() as connection:
            if database.postgres:
                await connection.execute(statement("DROP INDEX search_suite_book"))
            else:
                await connection.execute(statement("DROP TABLE search_suite_book"))
            await connection.run_sync(text_index.install, "suite_book")
        assert await ids(database, "诊断") == ["b0"]
