"""All figures of one set of questions, and the part of them that README and docs show, kept in a file beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Bootstrap
from benchmarks.quality.curve import Floats, RemovedAt, ScriptWords, emptied_at, removed_at, spread
from benchmarks.quality.measure import BINS, DEFAULTS, Samples, Setting, batches, measure
from ctxprune.data.questions import Question
from ctxprune.errors import InputError
from ctxprune.eval.metrics import Bin, average_precision, expected_calibration_error, ndcg, reciprocal_rank
from ctxprune.eval.statistics import Interval
from ctxprune.files import write_whole
from ctxprune.types import Compressor, TokenCounter

Figures = dict[str, Any]

METRICS = ("answer_kept", "precision", "recall")
SPANS = ("span_precision", "span_recall", "span_f2")
#: Shares of the answers that must stay, and shares of the answerable questions that may be emptied.
LEVELS = (0.95, 0.98, 0.99)
COSTS = (0.02, 0.05)


def evaluate(
    questions: Sequence[Question],
    compressors: Mapping[str, Compressor],
    *,
    budgets: Sequence[int] = (),
    thresholds: Sequence[float] = (),
    counter: TokenCounter | None = None,
    batch_size: int = 32,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Figures:
    """All figures of one set of questions; the first compressor is compared with each of the others.

    compressors: by the name to report. Each scores a question once; every budget (in the counter's units, by default
    words as in `ScriptWords`, titles left out) and, for probabilities, the defaults and every threshold are
    then a choice among the same scores. batch_size: questions scored together, fewer where documents are long.
    resamples, seed: of the bootstrap. progress: called with the questions done and their number.
    Returns what quality.json holds for one set. Raises InputError when there is nothing to evaluate.
    """
    if not questions or not compressors or not (budgets or thresholds):
        raise InputError("nothing to evaluate: give at least one question, one compressor, and a budget or a threshold")
    settings = [Setting(budget=budget) for budget in budgets] + [Setting(threshold=value) for value in thresholds]
    samples = Samples()
    for batch in batches(questions, batch_size):
        measure(batch, compressors, [DEFAULTS, *settings], counter or ScriptWords(), samples)
        progress(len(samples.answerable), len(questions))
    return _Rows(samples, list(compressors), Bootstrap(resamples=resamples, seed=seed)).all(budgets, thresholds)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of quality.json. names: of the compressors, the first of which is compared with the others."""

    samples: Samples
    names: Sequence[str]
    draw: Bootstrap

    def all(self, budgets: Sequence[int], thresholds: Sequence[float]) -> Figures:
        samples, names = self.samples, self.names
        gauged = [name for name in names if samples.curves.get(name)]
        levels = {name: [removed_at(samples.curves[name], at, **self.draw.options) for at in LEVELS] for name in gauged}
        others = [name for name in gauged if gauged[0] == names[0] != name]
        return {
            "questions": len(samples.answerable),
            "answerable": sum(samples.answerable),
            "words": float(np.mean(samples.words)),
            "defaults": [{"compressor": name, **self._choice(name, DEFAULTS)} for name in gauged],
            "removed_at": [_level_row(name, found) for name, each in levels.items() for found in each],
            "emptied_at": [self._emptied(name, cost) for name in gauged for cost in COSTS],
            "model_differences": [row for other in others for row in self._models(other, levels)],
            "budgets": [self._budget(name, budget) for budget in budgets for name in names],
            "differences": [
                self._difference(other, budget, metric)
                for budget in budgets
                for other in names[1:]
                for metric in METRICS
            ],
            "thresholds": [
                {"compressor": name, "threshold": threshold, **self._choice(name, Setting(threshold=threshold))}
                for name in gauged
                for threshold in thresholds
            ],
            "ranks": [row for name, ranks in samples.ranks.items() if (row := self._ranks(name, ranks))],
            "calibration": [
                {"compressor": name, **calibration(sums, **self.draw.options)}
                for name, sums in samples.outcomes.items()
                if any(each[0].any() for each in sums)
            ],
            "scoring_seconds": {name: round(seconds, 3) for name, seconds in samples.seconds.items()},
        }

    def _budget(self, name: str, budget: int) -> Figures:
        setting = Setting(budget=budget)
        words = float(np.mean(self.samples.values(name, setting, "words")))
        means = {metric: self.draw.mean(self.samples.values(name, setting, metric)) for metric in METRICS}
        return {"compressor": name, "budget": budget, "words": words, **means}

    def _difference(self, other: str, budget: int, metric: str) -> Figures:
        left, right = (self.samples.values(name, Setting(budget=budget), metric) for name in (self.names[0], other))
        names = {"ours": self.names[0], "baseline": other, "budget": budget, "metric": metric}
        return names | _judged(self.draw.difference(left, right))

    def _choice(self, name: str, setting: Setting) -> Figures:
        samples, mean = self.samples, self.draw.mean
        emptied = list(zip(samples.values(name, setting, "emptied"), samples.answerable, strict=True))
        removed = zip(samples.values(name, setting, "removed"), samples.answerable, strict=True)
        return {
            # of answerable questions: emptying the others would flatter it
            "removed": mean([value for value, answerable in removed if answerable]),
            **{metric: mean(samples.values(name, setting, metric)) for metric in (*METRICS, *SPANS)},
            "answerable_emptied": mean([value for value, answerable in emptied if answerable]),
            "unanswerable_emptied": mean([value for value, answerable in emptied if not answerable]),
        }

    def _emptied(self, name: str, cost: float) -> Figures:
        tops: tuple[list[float], list[float]] = ([], [])
        for curve, answerable in zip(self.samples.curves[name], self.samples.answerable, strict=True):
            tops[not answerable].append(curve.top)
        found = emptied_at(*tops, cost, **self.draw.options)
        return {
            "compressor": name,
            "cost": cost,
            "threshold": found.threshold,
            "answerable_emptied": found.answerable,
            "unanswerable_emptied": {"mean": found.unanswerable, "low": found.low, "high": found.high, "n": found.n},
        }

    def _models(self, other: str, levels: Mapping[str, list[RemovedAt]]) -> Iterator[Figures]:
        """Ours minus the other, paired by question, where both give probabilities."""
        ours = self.names[0]
        names = {"ours": ours, "baseline": other}
        for metric in ("answer_kept", "removed", "span_f2", "answerable_emptied", "unanswerable_emptied"):
            found = self.draw.difference(*(self._by_question(name, metric) for name in (ours, other)))
            yield {**names, "measure": f"{metric.replace('_', ' ')} at the defaults", **_judged(found)}
        for left, right in zip(levels[ours], levels[other], strict=True):
            low, high = spread(left.resampled - right.resampled)
            mean = left.removed - right.removed
            interval = Interval(mean, low, high, 0 if math.isnan(mean) else left.n)
            yield {**names, "measure": f"removed at {left.level:.0%} kept", **_judged(asdict(interval))}
        firsts = [[_gold_first(ranks) for ranks in self.samples.ranks[name]] for name in (ours, other)]
        yield {**names, "measure": "gold first", **_judged(self.draw.difference(*firsts))}

    def _by_question(self, name: str, metric: str) -> list[float]:
        """A figure of the defaults; emptied and removed only of the questions they count for, NaN for the others."""
        values = self.samples.values(name, DEFAULTS, "emptied" if metric.endswith("emptied") else metric)
        if metric not in ("removed", "answerable_emptied", "unanswerable_emptied"):
            return values
        wanted = metric != "unanswerable_emptied"
        pairs = zip(values, self.samples.answerable, strict=True)
        return [value if answerable == wanted else math.nan for value, answerable in pairs]

    def _ranks(self, name: str, ranks: Sequence[list[int] | None]) -> Figures | None:
        ranked = [each for each in ranks if each is not None]
        if not ranked:
            return None
        return {
            "ranker": name,
            "questions": len(ranked),
            "mrr": float(np.mean([reciprocal_rank(each) for each in ranked])),
            "ndcg10": float(np.mean([ndcg(each, k=10) for each in ranked])),
            "map": float(np.mean([average_precision(each) for each in ranked])),
            "gold_first": float(np.mean([min(each) == 1 for each in ranked])),
            "gold_first_interval": self.draw.mean(list(map(_gold_first, ranks))),
        }


def _judged(interval: Figures) -> Figures:
    return {"verdict": Interval(**interval).verdict, **interval}


def _level_row(name: str, found: RemovedAt) -> Figures:
    low, high = spread(found.resampled)
    n = 0 if math.isnan(found.removed) else found.n
    return {
        "compressor": name,
        "level": found.level,
        "threshold": found.threshold,
        "answer_kept": found.kept,
        "removed": {"mean": found.removed, "low": low, "high": high, "n": n},
    }


def _gold_first(ranks: list[int] | None) -> float:
    return math.nan if ranks is None else float(min(ranks) == 1)


def calibration(sums: Sequence[Floats], *, resamples: int, seed: int) -> Figures:
    """How far probabilities are from the share that is relevant, its interval over questions, and the bins of the
    diagram. sums: `bin_sums` of each question."""
    table = np.array(sums).reshape(len(sums), 3 * BINS)
    bins = _bins(table.sum(axis=0))
    ece = expected_calibration_error(bins)
    rng = np.random.default_rng(seed)
    n = len(table)
    counts = (rng.multinomial(n, np.full(n, 1 / n)) for _ in range(resamples))
    low, high = spread(np.array([_error(drawn @ table) for drawn in counts]))
    return {
        "sentences": sum(each.count for each in bins),
        "ece": ece,
        "ece_interval": {"mean": ece, "low": low, "high": high, "n": n},
        "bins": [asdict(each) for each in bins],
    }


def _error(sums: Floats) -> float:
    count, probability, relevant = sums.reshape(3, BINS)
    return float(np.abs(probability - relevant).sum() / max(count.sum(), 1))


def _bins(sums: Floats) -> list[Bin]:
    columns = enumerate(zip(*sums.reshape(3, BINS).tolist(), strict=True))
    return [
        Bin(place / BINS, (place + 1) / BINS, int(count), probability / count, relevant / count)
        for place, (count, probability, relevant) in columns
        if count
    ]


_OF_A_SET = ("questions", "answerable")
_OF_DEFAULTS = ("compressor", "answer_kept", "removed", "answerable_emptied", "unanswerable_emptied")
_OF_LEVELS = ("compressor", "level", "removed")
_OF_DIFFERENCES = ("ours", "baseline", "budget", "metric", "verdict")


def shown(report: Mapping[str, Any]) -> Figures:
    """What `benchmarks.tables` needs of a report, {"command", "sets"}, in its own form."""
    return {"command": report["command"], "sets": {name: _shown_set(each) for name, each in report["sets"].items()}}


def _shown_set(figures: Mapping[str, Any]) -> Figures:
    kept = [row for row in figures["differences"] if row["metric"] == "answer_kept"]
    return {
        **{name: figures[name] for name in _OF_A_SET},
        "defaults": [_part(row, _OF_DEFAULTS) for row in figures["defaults"]],
        "removed_at": [_part(row, _OF_LEVELS) for row in figures["removed_at"]],
        "budgets": [_part(row, ("compressor", "budget", "answer_kept")) for row in figures["budgets"]],
        "differences": [_part(row, _OF_DIFFERENCES) for row in kept],
        "ranks": [_part(row, ("ranker", "gold_first")) for row in figures["ranks"]],
        "calibration": [_part(row, ("compressor", "ece")) for row in figures["calibration"]],
    }


def _part(row: Mapping[str, Any], names: tuple[str, ...]) -> Figures:
    return {name: row[name] for name in names}


def write_figures(figures: Mapping[str, Any], path: Path) -> None:
    """Write the file whole or not at all: null for NaN, floats at six places, a set's rows on a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(plain(figures), indent=1, allow_nan=False) + "\n"
    write_whole(path, content, unfinished=path.with_name(f".{path.name}.part"))


def read_figures(path: Path) -> Figures:
    """What `write_figures` wrote, NaN where it has null. Raises InputError for a missing or damaged file."""
    try:
        figures: Figures = json.loads(path.read_text(encoding="utf-8"), object_hook=_with_nan)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the figures {path}: {error}") from None
    return figures


def _with_nan(row: Figures) -> Figures:
    return {name: math.nan if value is None else value for name, value in row.items()}


def plain(figures: Any) -> Any:
    """Figures as JSON has them: null for NaN, floats at six places."""
    if isinstance(figures, dict):
        return {key: plain(value) for key, value in figures.items()}
    if isinstance(figures, list):
        return [plain(value) for value in figures]
    if isinstance(figures, float):
        return None if math.isnan(figures) else round(figures, 6)
    return figures
