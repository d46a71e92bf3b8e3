"""Histograms and curves as SVG that takes its colors and fonts from the page around it; it knows no quantity."""

import io
import re
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from sluice.rows.profile.sketches import Lengths

#: Colors that are no one's, each to be replaced by a variable of the page.
_COLORS = {"#010203": "var(--accent)", "#040506": "var(--muted)", "#070809": "var(--line)", "#0a0b0c": "var(--mark)"}
_BAR, _TEXT, _LINE, _MARK = _COLORS
#: What matplotlib names by numbers, which are the same in every plot.
_NAMES = "figure|axes|patch|text|line2d|matplotlib|xtick|ytick|PolyCollection|StepPatch"
_WIDE_INCHES, _HALF_INCHES = (7.2, 2.0), (3.5, 1.7)
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 7.5,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": _LINE,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "ytick.left": False,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
}
#: Where a label no longer has room to the right of its line, as a share of the plot.
_LEFT_FROM = 0.8
_ONE_AT_A_TIME = Lock()


def histogram(lengths: Lengths, name: str, *, wide: bool = True) -> str:
    """An `<svg>` of the bars with the median and the 95 % quantile marked; `name` makes its ids differ from others'.

    `wide` is for a plot as wide as the page, otherwise half of it. All text in it is digits, as text elements. The same
    input gives the same bytes. ModuleNotFoundError without matplotlib.
    """
    return _drawn(lambda axes: _draw(axes, lengths), name, wide=wide)


def curves(series: Sequence[Sequence[tuple[float, float]]], name: str, *, wide: bool = True) -> str:
    """An `<svg>` of lines through (x, y) points, the second in the color of marks; otherwise as `histogram`."""
    return _drawn(lambda axes: _draw_curves(axes, series), name, wide=wide)


def _drawn(draw: Callable[[Any], None], name: str, *, wide: bool) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    # Settings are those of the process: they are ours for a moment, and nobody's own file changes the plot.
    with _ONE_AT_A_TIME, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(_WIDE_INCHES if wide else _HALF_INCHES, layout="constrained")
        draw(figure.subplots())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _inline(out.getvalue())


def _draw_curves(axes: Any, series: Sequence[Sequence[tuple[float, float]]]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for points, color in zip(series, (_BAR, _MARK), strict=False):
        lone = "o" if len(points) == 1 else ""
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1.2, marker=lone, markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value) if value >= 1000 else f"{value:.3g}"))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _draw(axes: Any, lengths: Lengths) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    bars = lengths.histogram
    # A bar of whole numbers reaches from half below the first to half above the last; on a log axis it begins there.
    half = 0.0 if _is_log(lengths) else 0.5
    edges = [bar.low - half for bar in bars] + [bars[-1].high + 1 - half]
    axes.stairs([bar.count for bar in bars], edges, fill=True, color=_BAR)
    _scale(axes, lengths)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.minorticks_off()
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlim(edges[0], edges[-1])
    # Where the two marks are close together the label of the second goes below that of the first.
    first, second = (_across(axes, value) for value in (lengths.p50, lengths.p95))
    close = second - first < (0.3 if second > _LEFT_FROM else 0.15)
    axes.set_ylim(0, max(bar.count for bar in bars) * (1.25 if close else 1.12))
    _mark(axes, lengths.p50, "50 %", 0)
    _mark(axes, lengths.p95, "95 %", int(close))


def _mark(axes: Any, value: int, text: str, line: int) -> None:
    """A vertical line with a label on the side where there is room, so many lines below the top."""
    axes.axvline(value, color=_MARK, linewidth=1)
    left = _across(axes, value) > _LEFT_FROM
    shift, side = (-3 if left else 3, 1 - 10 * line), "right" if left else "left"
    corner = ("data", "axes fraction")
    axes.annotate(text, (value, 1), shift, corner, "offset points", color=_MARK, ha=side, va="top")


def _across(axes: Any, value: float) -> float:
    """How far to the right a value lies, from 0 to 1."""
    return float((axes.transScale + axes.transLimits).transform((value, 1))[0])


def _is_log(lengths: Lengths) -> bool:
    return lengths.max > 20 * max(lengths.min, 1)


def _scale(axes: Any, lengths: Lengths) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, SymmetricalLogLocator

    if not _is_log(lengths):
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        return
    steps = (1, 2, 5) if lengths.max < 300 * max(lengths.min, 1) else (1,)
    if lengths.min == 0:
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=steps))
    else:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _inline(svg: str) -> str:
    """Only the element itself, with the page's colors and fonts instead of its own, and to be scaled."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' width="[\d.]+pt"| height="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(rf' id="({_NAMES})_[\w.]+"', "", svg)
    for ours, theirs in _COLORS.items():
        svg = svg.replace(ours, theirs)
    return svg.strip()
