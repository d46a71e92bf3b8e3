"""``dataset_list_p95_ms_*``, ``dataset_search_p95_ms_*``: a page out of 100 000 datasets, on SQLite and PostgreSQL."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from sqlalchemy import insert, text
from sqlalchemy.engine import make_url

from benchmarks.figure import Figure
from benchmarks.intervals import order_bounds, quantile
from kit.store import Database
from kit.store.text_index import microseconds
from services.dataset import domain, store
from sluice.dataset import v1 as dataset
from tests.servers import postgres_server
from tests.suite import Suite, suite

TARGET_MS = 50.0
DATASETS, QUICK_DATASETS = 100_000, 10_000
CALLS, QUICK_CALLS = 200, 20
PAGE = 50
PROJECT = "projects/default"
PROGRAMS = ("registry", "dataset", "gateway")
SIGNS = "影像报告患者检查结果治疗方案随访记录病历分类客户账户贷款信用卡交易风险客服对话训练语料问答摘要翻译"
WORDS = [
    "chest",
    "lung",
    "liver",
    "card",
    "loan",
    "branch",
    "transfer",
    "report",
    "intent",
    "dialog",
    "corpus",
    "question",
    "answer",
    "image",
    "note",
]
START = datetime(2025, 1, 1, tzinfo=UTC)
FIRST = {"revision": 1, "state": 0}
#: One in a hundred is found by each of these; by `rows` all are, by `absent` none.
SEARCHES = {
    "word": "diagnosis",
    "chinese": "诊断",
    "tag": 'tags.ward = "w7"',
    "mixed": 'task_type = sft AND tags:ward AND (诊断 OR tags.ward = "w7")',
}
OTHERS = {"all": "rows", "none": "absent", "not": "-诊断", "one_character": "诊", "late": "create_time > {late}"}
EACH = timedelta(minutes=5)
STORES = ("sqlite", "postgres")
NAMES = tuple(f"dataset_{what}_p95_ms_{store}" for store in STORES for what in ("list", "search"))


def measure(folder: Path, options: argparse.Namespace) -> list[Figure]:
    """Both stores, one after the other: a suite starts, the table is filled beside it, then one caller asks."""
    counts = (QUICK_DATASETS, QUICK_CALLS) if options.quick else (DATASETS, CALLS)
    return [figure for where, running, url in suites(folder) for figure in figures(where, running, url, *counts)]


def suites(folder: Path) -> Iterator[tuple[str, Suite, str]]:
    """A running suite on each store, and the URL of the dataset service's database."""
    with suite(folder / "sqlite", *PROGRAMS) as running:
        yield STORES[0], running, f"sqlite:///{running.home}/db/dataset.db"
    with postgres_server() as server:
        pattern = asyncio.run(databases(server))
        with suite(folder / "postgres", *PROGRAMS, SLUICE_DATABASE_URL=pattern) as running:
            yield STORES[1], running, pattern.format(service="dataset")


async def databases(server: str) -> str:
    """Makes an empty database a service; returns the pattern of their URLs."""
    connection = await asyncpg.connect(server)
    for program in PROGRAMS:
        await connection.execute(f"CREATE DATABASE sluice_{program}")
    await connection.close()
    url = make_url(server).set(database="sluice_SERVICE").render_as_string(hide_password=False)
    return url.replace("SERVICE", "{service}")


def figures(where: str, running: Suite, url: str, datasets: int, calls: int) -> list[Figure]:
    """The two figures of one store."""
    asyncio.run(fill(url, datasets))
    late = (START + EACH * (datasets * 99 // 100)).isoformat()
    took = asyncio.run(ask(running, calls, late))
    searched = [each for name in SEARCHES for each in took[name]]
    details = {f"{name}_p95": quantile(values, 0.95) for name, values in took.items()}
    made = []
    for name, values in (("list", took["page"]), ("search", searched)):
        low, high = order_bounds(values, 0.95)
        made.append(
            Figure(
                name=f"dataset_{name}_p95_ms_{where}",
                statistic="p95",
                value=quantile(values, 0.95),
                low=low,
                high=high,
                n=len(values),
                target=TARGET_MS,
                start="ListDatasets is called at the public port",
                end=f"the page of {PAGE} is there",
                beside="registry, gateway and dataset service; one caller, one call after the other",
                details={"datasets": float(datasets), **details},
                note=f"{where}; of search: {', '.join(SEARCHES)}, which each match 1 %.",
            )
        )
    return made


async def ask(running: Suite, calls: int, late: str) -> dict[str, list[float]]:
    """Milliseconds of each call by what was asked, all in turns; the first calls of each are not counted."""
    took: dict[str, list[float]] = {name: [] for name in ("page", "later_page", *SEARCHES, *OTHERS)}
    async with running.channel() as channel:
        stub = dataset.DatasetServiceStub(channel)
        token = ""
        for turn in range(calls + 5):
            for name in took:
                filter = SEARCHES.get(name, OTHERS.get(name, "")).format(late=late)
                request = dataset.ListDatasetsRequest(parent=PROJECT, page_size=PAGE, filter=filter)
                request.page_token = token if name == "later_page" else ""
                begun = time.perf_counter()
                answer = await stub.ListDatasets(request)
                if turn >= 5:
                    took[name].append((time.perf_counter() - begun) * 1e3)
                assert len(answer.datasets) == (0 if name == "none" else PAGE), (name, len(answer.datasets))
                if name == "later_page":
                    token = answer.next_page_token
    return took


async def fill(url: str, count: int) -> None:
    """Writes so many datasets of project `default` as the service would, a thousand at a time."""
    database, resources = await Database.open(url, service="dataset"), store.DATASETS
    for begin in range(0, count, 1000):
        rows = []
        for number in range(begin, min(begin + 1000, count)):
            at = START + EACH * number
            times = {"create_time": at, "update_time": at, "position": microseconds(at)}
            rows.append(resources._values(domain.new_dataset(PROJECT, example(number))) | times | FIRST)
        async with database.begin() as unit:
            await (await unit.session.connection()).execute(insert(resources.table), rows)
    if database.postgres:  # what autovacuum does in its own time
        async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("ANALYZE"))
    await database.close()


def example(number: int) -> dataset.Dataset:
    """One of a hundred is what the searches look for."""
    rng = random.Random(number)
    chinese, words = "".join(rng.choices(SIGNS, k=30)), " ".join(rng.choices(WORDS, k=20))
    one = rng.randrange(100) == 0
    return dataset.Dataset(
        display_name=f"set {number} {rng.choice(WORDS)}",
        description=f"rows {words} {'diagnosis ' * one}{chinese[:15]}{'诊断' * one}{chinese[15:]}",
        task_type="sft" if one else rng.choice(["sft", "pretrain"]),
        tags={"ward": "w7" if one else f"w{rng.randrange(8, 100)}", "language": rng.choice(["zh", "en"])},
    )
