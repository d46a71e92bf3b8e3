"""Runs the measurements that are asked for and shows what they gave; it knows no figure."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figure import Figure

#: Measures some figures in an empty folder.
Measure = Callable[[Path, argparse.Namespace], list[Figure]]
#: What is measured in one go, by the names of the figures it gives.
Measures = Mapping[tuple[str, ...], Measure]


def run(measures: Measures, arguments: Sequence[str] | None = None, *, on_demand: Sequence[str] = ()) -> int:
    """Measures and prints; exit 1 when a target is not met. ``on_demand`` figures want ``--only`` or ``--engine``."""
    names = [name for names in measures for name in names]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", action="append", choices=names, default=[], help="this figure; may be repeated")
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it works, proves nothing")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of runs against a peer")
    parser.add_argument("--engine", action="store_true", help="also first_score_s, which starts a real engine")
    parser.add_argument("--folder", type=Path, help="where the suites keep their files; a temporary folder")
    options = parser.parse_args(arguments)
    figures = []
    for given, measure in measures.items():
        wanted = set(options.only) & set(given) if options.only else options.engine or not set(given) & set(on_demand)
        if wanted:
            figures += measured(measure, given[0], options)
    if options.json:
        about = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "cpus": os.cpu_count()}
        print(json.dumps({**about, "quick": options.quick, "figures": [figure.as_json() for figure in figures]}))
    else:
        show(figures, options.quick)
    return int(any(figure.verdict == "NOT MET" for figure in figures))


def measured(measure: Measure, name: str, options: argparse.Namespace) -> list[Figure]:
    """Runs one measurement in an empty folder and notes the load before and after it."""
    print(f"{name} …", file=sys.stderr, flush=True)
    before = os.getloadavg()[0]
    with _folder(options.folder, name) as folder:
        figures = measure(folder, options)
    return [replace(figure, load=(before, os.getloadavg()[0])) for figure in figures]


@contextmanager
def _folder(parent: Path | None, name: str) -> Iterator[Path]:
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=parent) as path:
        yield Path(path)


def show(figures: Sequence[Figure], quick: bool) -> None:
    """The table, and below it what each figure is."""
    console = Console()
    table = Table("figure", "target", "statistic", "value", "95% bounds", "n", "load", "", box=None)
    for each in figures:
        bounds = f"{each.low:.4g} … {each.high:.4g}"
        load = f"{each.load[0]:.1f} → {each.load[1]:.1f}"
        statistic, value = each.statistic, f"{each.value:.4g}"
        table.add_row(each.name, each.goal, statistic, value, bounds, str(each.n), load, each.verdict)
    console.print(table)
    for each in figures:
        console.print(f"\n[bold]{each.name}[/]  {each.start} → {each.end}; beside it: {each.beside}", highlight=False)
        if each.details:
            console.print("  " + "  ".join(f"{name} {value:.4g}" for name, value in each.details.items()))
        if each.note:
            console.print(f"  {each.note}", highlight=False)
    if quick:
        console.print("\n[yellow]--quick: too few repetitions and too short waits for any claim[/]")
