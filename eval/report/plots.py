"""Draw a run: score against tokens and against seconds, and what is kept; needs matplotlib, which is optional."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ctxprune.errors import MissingExtraError
from ctxprune.eval.report.folder import (
    Results,
    Row,
    by_dataset,
    is_baseline,
    is_percentage,
    is_reference,
    is_tested,
    label,
    mean,
    number,
    score_name,
)

# Okabe & Ito's colours, told apart by colour-blind readers; yellow is left out, it is too faint on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, KEPT, REMOVED = "0.35", "#0072B2", "#DDDDDD"
LOG_FROM = 8.0  # the axis is logarithmic when the largest cost is this many times the smallest


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture. alt: what it shows, for those who cannot see it."""

    dataset: str
    file: str
    title: str
    alt: str


@dataclass(frozen=True, slots=True)
class Curve:
    """The arms of one compressor that differ in one setting."""

    name: str
    rows: tuple[Row, ...]
    matched: bool


#: A variant's name as the run gives it: that of its set, then what was varied; see `ctxprune.eval.run.contexts`.
_VARIANT = re.compile(r"(?P<base>.+) (?P<kind>needle|documents)=(?P<value>[0-9.e+-]+)")

AXES: Mapping[str, str] = {
    "needle": "position of the gold documents (0 first, 1 last)",
    "documents": "documents a question",
}


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was varied on one set. kind: a key of AXES. score: the metric drawn. lines: (value, row) by arm."""

    base: str
    kind: str
    score: str
    lines: Mapping[str, tuple[tuple[float, Row], ...]]


def sweeps(datasets: Mapping[str, Sequence[Row]]) -> Iterator[Sweep]:
    """The sweeps of a run with two points or more; baselines at equal tokens are left out, for legibility.

    datasets: rows by data set, as `rows.by_dataset` gives them.
    """
    found: dict[tuple[str, str], dict[float, Sequence[Row]]] = {}
    for dataset, rows in datasets.items():
        if (match := _VARIANT.fullmatch(dataset)) and match["base"] in datasets:
            found.setdefault((match["base"], match["kind"]), {})[float(match["value"])] = rows
    for (base, kind), points in found.items():
        if len(points) > 1:
            score = score_name([row for rows in points.values() for row in rows])
            yield Sweep(base, kind, score, _lines(points, score))


def _lines(points: Mapping[float, Sequence[Row]], score: str) -> dict[str, tuple[tuple[float, Row], ...]]:
    lines: dict[str, list[tuple[float, Row]]] = {}
    for value, rows in sorted(points.items()):
        for row in rows:
            mean = row["metrics"].get(score, {}).get("mean")
            if not is_baseline(row) and mean is not None and not math.isnan(mean):
                lines.setdefault(row["arm"], []).append((value, row))
    # what does not read the documents is level, and the oracle would be too
    return {arm: tuple(line) for arm, line in lines.items() if arm == "full" or not is_reference(line[0][1])}


def draw(results: Results, folder: Path) -> list[Plot]:
    """Write the pictures of every dataset into `folder`, which exists, as PNG; the same results give the same files.

    Left out are pictures for which nothing was measured. Raises MissingExtraError without matplotlib.
    """
    require_matplotlib()
    datasets = by_dataset(results)
    slug = dict(zip(datasets, slugs(list(datasets)), strict=True))
    plots: list[Plot] = []

    def save(dataset: str, kind: str, title: str, figure: Any, score: str) -> None:
        file = f"{slug[dataset]}-{kind}.png"
        figure.savefig(folder / file, dpi=130, metadata={"Software": None})
        alt = f"{title} on {dataset}; score: {label(score)}. The table has the figures."
        plots.append(Plot(dataset, file, title, alt))

    for dataset, rows in datasets.items():
        for kind, (title, figure) in _figures(rows).items():
            save(dataset, kind, title, figure, score_name(rows))
    for sweep in sweeps(datasets):
        save(sweep.base, sweep.kind, f"Score by {AXES[sweep.kind]}", _sweep(sweep), sweep.score)
    return plots


def require_matplotlib() -> None:
    """Raise MissingExtraError unless matplotlib is installed, so that a long run can fail before it starts."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise MissingExtraError("drawing the plots of a run", "bench") from error


def slugs(names: Sequence[str]) -> list[str]:
    """A file name for each dataset, none twice: letters, digits, "." and "-" stay."""
    found: list[str] = []
    for name in names:
        slug = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "dataset"
        while slug.lower() in {each.lower() for each in found}:  # some file systems do not tell case apart
            slug += "-2"
        found.append(slug)
    return found


def curves(rows: Sequence[Row]) -> list[Curve]:
    """Arms that one line joins: one compressor and the same settings but for their values; baselines by compressor."""
    found: dict[tuple[str, bool, tuple[str, ...]], list[Row]] = {}
    for row in rows:
        if not is_reference(row):
            names = () if is_baseline(row) else tuple(sorted(row["settings"]))
            found.setdefault((row["compressor"], is_baseline(row), names), []).append(row)
    several = [compressor for compressor, matched, _ in found if not matched]
    return [
        Curve(_curve_name(compressor, names, several), tuple(sorted(group, key=_tokens)), matched)
        for (compressor, matched, names), group in found.items()
    ]


def _curve_name(compressor: str, names: Sequence[str], several: Sequence[str]) -> str:
    return f"{compressor} ({', '.join(names)})" if several.count(compressor) > 1 and names else compressor


def _figures(rows: Sequence[Row]) -> Mapping[str, tuple[str, Any]]:
    score = score_name(rows)
    found: dict[str, tuple[str, Any]] = {}
    costs = {row["arm"]: _tokens(row) for row in rows}
    if figure := _scatter(rows, costs, score, "tokens sent to the generator (mean of a question)"):
        found["tokens"] = ("Score against tokens sent", figure)
    costs = {row["arm"]: _net_seconds(row) for row in rows}
    if figure := _scatter(rows, costs, score, "seconds to compress and generate (mean of a question)"):
        found["seconds"] = ("Score against net seconds", figure)
    if figure := _bars(rows):
        found["kept"] = ("Tokens kept and removed", figure)
    return found


def _tokens(row: Row) -> float:
    return number(row["tokens_after"])


def _net_seconds(row: Row) -> float:
    """Seconds of compressing and generating together; a stage that did not run takes none. NaN when neither ran."""
    seconds = [mean(row, metric) for metric in ("compress_seconds", "generate_seconds")]
    known = [value for value in seconds if not math.isnan(value)]
    return sum(known) if known else math.nan


def _scatter(rows: Sequence[Row], costs: Mapping[str, float], score: str, axis: str) -> Any:
    """The curves of the compressors and the references; None when no arm has both a cost and a score."""
    known = [row for row in rows if not (math.isnan(costs[row["arm"]]) or math.isnan(mean(row, score)))]
    if not any(not is_reference(row) for row in known):
        return None
    figure = import_module("matplotlib.figure").Figure(figsize=(7.2, 5.4), layout="constrained")
    unit = " (%)" if is_percentage(score) else ""
    axes = figure.add_subplot(xlabel=axis, ylabel=label(score) + unit)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for row in filter(is_reference, known):
        _reference(axes, row, costs[row["arm"]], score)
    for look, curve in _looks(curves(known)):
        _curve(axes, curve, costs, score, look)
    _scale(axes, [cost for row in known if (cost := costs[row["arm"]]) > 0 or row["arm"] != "none"])
    figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return figure


def _looks(found: Sequence[Curve]) -> Iterator[tuple[dict[str, Any], Curve]]:
    """Tested compressors in full lines, baselines dashed and thin; both differ in colour and in marker."""
    for place, curve in enumerate(sorted(found, key=lambda curve: curve.matched)):
        look = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[(place + place // 7) % len(MARKERS)]}
        yield look | ({"linestyle": "--", "linewidth": 1, "alpha": 0.75} if curve.matched else {"linewidth": 2}), curve


def _curve(axes: Any, curve: Curve, costs: Mapping[str, float], score: str, look: Mapping[str, Any]) -> None:
    rows = sorted(curve.rows, key=lambda row: costs[row["arm"]])
    middle = [_height(row, score, "mean") for row in rows]
    low, high = ([_height(row, score, end) for row in rows] for end in ("low", "high"))
    errors = [
        [max(0.0, centre - end) for centre, end in zip(middle, low, strict=True)],
        [max(0.0, end - centre) for centre, end in zip(middle, high, strict=True)],
    ]
    name = curve.name + (" (same tokens)" if curve.matched else "")
    bars = {"elinewidth": 1, "capsize": 2, "markersize": 5 if curve.matched else 7}
    _, caps, lines = axes.errorbar([costs[row["arm"]] for row in rows], middle, yerr=errors, label=name, **bars, **look)
    for bar in (*caps, *lines):  # baselines stand at the very tokens of the tested arms: their bars must not hide those
        bar.set_alpha(0.3 if curve.matched else 1)


def _reference(axes: Any, row: Row, cost: float, score: str) -> None:
    """A level line across the picture, so that any arm can be held against it, and the point where it costs."""
    name, style, marker = {
        "none": ("no context", ":", ""),
        "full": ("full context", "-", "s"),
        "gold": ("gold (oracle)", "-.", "*"),
        "gold-documents": ("gold documents, whole", "-.", "P"),
    }[row["arm"]]
    height = _height(row, score, "mean")
    axes.axhline(height, color=GREY, linestyle=style, linewidth=1, label=None if marker else name)
    if marker:
        size = 12 if marker == "*" else 7
        axes.plot(
            [cost], [height], color=GREY, linestyle=style, marker=marker, markersize=size, linewidth=1, label=name
        )


def _height(row: Row, score: str, end: str) -> float:
    return number(row["metrics"][score][end]) * (100 if is_percentage(score) else 1)


def _scale(axes: Any, costs: Sequence[float]) -> None:
    if min(costs) > 0 and max(costs) / min(costs) > LOG_FROM:
        ticker = import_module("matplotlib.ticker")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlim(min(costs) / 1.3, max(costs) * 1.3)
    else:
        axes.set_xlim(left=0)


def _sweep(sweep: Sweep) -> Any:
    figure = import_module("matplotlib.figure").Figure(figsize=(7.2, 5.4), layout="constrained")
    unit = " (%)" if is_percentage(sweep.score) else ""
    axes = figure.add_subplot(xlabel=AXES[sweep.kind], ylabel=label(sweep.score) + unit)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    for place, (arm, line) in enumerate(sweep.lines.items()):
        heights, low, high = ([_height(row, sweep.score, end) for _, row in line] for end in ("mean", "low", "high"))
        color, marker = (GREY, "s") if arm == "full" else (COLOURS[(place - 1) % 7], MARKERS[(place - 1) % 7])
        axes.plot([value for value, _ in line], heights, color=color, marker=marker, label=arm)
        axes.fill_between([value for value, _ in line], low, high, color=color, alpha=0.12, linewidth=0)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return figure


def _bars(rows: Sequence[Row]) -> Any:
    """One bar a tested arm: the share of tokens kept, and beside it how often the answer is still there."""
    shown = [row for row in rows if is_tested(row) and number(row["tokens_before"]) > 0 and _tokens(row) >= 0]
    if not shown:
        return None
    figure = import_module("matplotlib.figure").Figure(figsize=(7.2, 1.3 + 0.36 * len(shown)), layout="constrained")
    axes = figure.add_subplot(xlabel="share of tokens (%)", xlim=(0, 100))
    kept = [min(100.0, 100 * _tokens(row) / number(row["tokens_before"])) for row in shown]
    places = range(len(shown))
    axes.barh(places, kept, color=KEPT, label="kept")
    axes.barh(
        places,
        [100 - share for share in kept],
        left=kept,
        color=REMOVED,
        hatch="//",
        edgecolor="white",
        label="removed",
    )
    axes.set_yticks(places, [row["arm"] for row in shown], fontsize="small")
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    for place, row in enumerate(shown):
        axes.annotate(
            _kept_note(row), (100, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize="small"
        )
    figure.legend(loc="outside upper left", ncols=2, fontsize="small", frameon=False)
    return figure


def _kept_note(row: Row) -> str:
    held = mean(row, "answer_in_context")
    return f"{_tokens(row):,.0f} tokens" + ("" if math.isnan(held) else f", answer in {100 * held:.0f}%")
