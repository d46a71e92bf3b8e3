"""The figures of the main job: ``python benchmarks/pipeline.py --json``. What a figure means stands in its own file."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # started by its path and not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks import evaluation_lag, first_score, memory, ready, rollback, training  # noqa: E402
from benchmarks.figure import Figure  # noqa: E402

Measure = Callable[[Path, argparse.Namespace], list[Figure]]
#: What is measured in one go, by the name of the figures it gives.
MEASURES: dict[tuple[str, ...], Measure] = {
    ("ready_s",): ready.measure,
    ("pss_mb",): memory.measure,
    ("evaluation_lag_p95_ms",): evaluation_lag.measure,
    ("rollback_ms",): rollback.measure,
    ("train_ratio", "submit_overhead_s"): training.measure,
    ("first_score_s",): first_score.measure,
}
NAMES = [name for names in MEASURES for name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; exit 1 when a target is not met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--only", action="append", choices=NAMES, default=[], help="this figure; may be repeated")
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it works, proves nothing")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of training runs")
    parser.add_argument("--engine", action="store_true", help="also first_score_s, which starts a real engine")
    parser.add_argument("--folder", type=Path, help="where the suites keep their files; a temporary folder")
    options = parser.parse_args(arguments)
    figures = []
    for names, measure in MEASURES.items():
        asked = set(options.only) & set(names) if options.only else options.engine or names != ("first_score_s",)
        if asked:
            figures += measured(measure, names[0], options)
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


if __name__ == "__main__":
    sys.exit(main())
