"""The figures of a quality run as Markdown tables, and the reliability of its probabilities as a plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.quality.figures import LEVELS
from ctxprune.errors import MissingExtraError
from ctxprune.eval.report.markdown import compact

Figures = Mapping[str, Any]

_VERDICTS = {"win": "wins", "tie": "ties", "loss": "**loses**", "none": "–"}

_READING = """\
How to read it. **Answer kept**: share of answerable questions whose context still holds an answer: in a gold document
an answer span lies within a kept slice, or a kept slice has an accepted answer as whole tokens. Where a question has no
answer spans (written answers, judgements) it is the share of its relevant sentences that are kept. **Precision,
recall**: of relevant sentences, over one sentence split for all compressors; a sentence is kept when more than half of
it is; precision counts questions of which something is kept. **Words removed** is the share of the words of answerable
questions. **Emptied**: no text at all is kept. Titles are left out, so words are words of passages.
Brackets hold 95% percentile bootstrap intervals over questions. A difference is paired by question and **wins** or
**loses** when its interval excludes 0. A set named "+pool" hides the gold passage, in 100-word chunks, among the
BM25-nearest chunks of other passages that hold no accepted answer, ten in all, shuffled. In scripts without spaces a
character counts as a word.
**Defaults**: what `compress` does without options. **Removed @98**: the largest share of words removed while 98% of the
answers stay, over every threshold that the scores offer; the threshold is chosen on the questions themselves, and anew
in each resample of its interval. **Gold first**: share of questions whose best-scored document is a gold one. **Span
precision, recall, F2**: of kept characters against those of relevant sentences, the mean over questions (OpenProvence
measures so, with tokens); F2 of a question of which nothing is kept is 0. **ECE**: expected calibration error of the
sentences' probabilities, ten bins of equal width; 0 is perfect.
Rungs of a ladder ask the same questions (fewer on the last two) with more text around the answer; there the answer must
stay in its own paragraph, and a sentence elsewhere that answers as well counts as irrelevant."""


def render(report: Figures) -> str:
    """The whole report. report: {"command", "sets": {name: figures of `figures.evaluate`}}."""
    parts = ["# Quality of pruning", f"Made by:\n\n    {report['command']}", _READING]
    parts += _overview(report["sets"])
    parts += _models(report["sets"])
    parts += _summary(report["sets"])
    for name, figures in report["sets"].items():
        parts += _set(name, figures)
    return "\n\n".join(parts) + "\n"


def _overview(sets: Mapping[str, Figures]) -> Iterator[str]:
    """A row a set and compressor with probabilities: the defaults, the operating points, order and calibration."""
    rows = []
    for name, figures in sets.items():
        levels = {(row["compressor"], row["level"]): row for row in figures["removed_at"]}
        ranks = {row["ranker"]: row["gold_first"] for row in figures["ranks"]}
        errors = {row["compressor"]: row["ece"] for row in figures["calibration"]}
        for row in figures["defaults"]:
            compressor = row["compressor"]
            points = [each for (owner, _), each in levels.items() if owner == compressor]
            rows.append(
                [
                    name,
                    compressor,
                    f"{figures['questions']:,}",
                    interval(row["answer_kept"]),
                    interval(row["removed"]),
                    *(number(each["removed"]["mean"]) for each in points),
                    number(ranks.get(compressor, math.nan)),
                    number(row["answerable_emptied"]["mean"]),
                    number(row["unanswerable_emptied"]["mean"]),
                    number(errors.get(compressor, math.nan)),
                ]
            )
    if rows:
        levels_head = [f"removed @{round(100 * level)}" for level in LEVELS]
        emptied = ["answerable emptied", "unanswerable emptied"]
        yield "## Summary: at the defaults, and the most that can go"
        yield _table(
            ["set", "compressor", "n", "answer kept", "removed", *levels_head, "gold first", *emptied, "ECE"], rows
        )


def _models(sets: Mapping[str, Figures]) -> Iterator[str]:
    """Differences between compressors that give probabilities, such as two models of one family."""
    pairs = dict.fromkeys(
        (row["ours"], row["baseline"]) for figures in sets.values() for row in figures["model_differences"]
    )
    for ours, baseline in pairs:
        table: dict[str, dict[str, str]] = {}
        for name, figures in sets.items():
            for row in figures["model_differences"]:
                if (row["ours"], row["baseline"]) == (ours, baseline):
                    verdict = f"{_signed(row)} {_VERDICTS[row['verdict']]}".strip()
                    table.setdefault(name, {})[row["measure"]] = verdict
        measures = list(dict.fromkeys(measure for cells in table.values() for measure in cells))
        yield f"## {ours} − {baseline}"
        yield "Paired by question. A positive difference in what is emptied or removed: the first takes out more."
        yield _table(["set", *measures], [[name, *(cells[m] for m in measures)] for name, cells in table.items()])


def _summary(sets: Mapping[str, Figures]) -> Iterator[str]:
    """Answer kept at every budget: ours, and for each baseline its figure and whether ours wins, ties or loses."""
    ours, baselines = _contestants(sets)
    if not baselines:
        return
    rows, tally = [], dict.fromkeys(_VERDICTS, 0)
    for name, figures in sets.items():
        kept = {(row["compressor"], row["budget"]): row["answer_kept"]["mean"] for row in figures["budgets"]}
        found = {
            (row["baseline"], row["budget"]): row["verdict"]
            for row in figures["differences"]
            if row["metric"] == "answer_kept"
        }
        for budget in dict.fromkeys(budget for _, budget in kept):
            if math.isnan(kept[ours, budget]):  # a set without answer or sentence labels
                continue
            verdicts = [found[baseline, budget] for baseline in baselines]
            for verdict in verdicts:
                tally[verdict] += 1
            cells = [
                f"{number(kept[baseline, budget])} {_VERDICTS[verdict]}"
                for baseline, verdict in zip(baselines, verdicts, strict=True)
            ]
            rows.append([name, str(budget), number(kept[ours, budget]), *cells])
    yield f"## Answer kept at equal words: does {ours} win, tie or lose?"
    yield _table(["set", "words", ours, *baselines], rows)
    yield (
        f"{ours} wins {tally['win']}, ties {tally['tie']} and loses {tally['loss']} of "
        f"{tally['win'] + tally['tie'] + tally['loss']} comparisons."
    )


def _contestants(sets: Mapping[str, Figures]) -> tuple[str, list[str]]:
    rows = [row for figures in sets.values() for row in figures["differences"]]
    return (rows[0]["ours"], list(dict.fromkeys(row["baseline"] for row in rows))) if rows else ("", [])


def _set(name: str, figures: Figures) -> Iterator[str]:
    yield f"## {name}"
    yield (
        f"{figures['questions']:,} questions ({figures['questions'] - figures['answerable']:,} unanswerable), "
        f"{figures['words']:,.0f} words each on average."
    )
    for title, table in (
        ("At equal words", _budgets(figures)),
        ("At the defaults and at a threshold", _thresholds(figures)),
        ("Against relevant sentences, by characters", _spans(figures)),
        ("The most words removed while the answers stay", _levels(figures["removed_at"])),
        ("Unanswerable questions emptied", _emptied(figures["emptied_at"])),
        ("Order of the documents", _ranks(figures["ranks"])),
    ):
        if table:
            yield f"### {title}"
            yield table
    for row in figures["calibration"]:
        yield f"### Calibration: {row['compressor']}"
        error = interval(row["ece_interval"])
        yield f"{row['sentences']:,} sentences, expected calibration error {error}."
        yield _reliability(row["bins"])


def _budgets(figures: Figures) -> str:
    differences = {
        (row["baseline"], row["budget"]): row for row in figures["differences"] if row["metric"] == "answer_kept"
    }
    rows = []
    for row in figures["budgets"]:
        difference = differences.get((row["compressor"], row["budget"]))
        verdict = f"{_signed(difference)} {_VERDICTS[difference['verdict']]}".strip() if difference else ""
        metrics = [interval(row[metric]) for metric in ("answer_kept", "precision", "recall")]
        rows.append([str(row["budget"]), row["compressor"], f"{row['words']:.0f}", *metrics, verdict])
    ours = figures["budgets"][0]["compressor"] if rows else ""
    return _table(
        ["budget", "compressor", "words kept", "answer kept", "precision", "recall", f"answer kept: {ours} − this"],
        rows,
    )


def _choices(figures: Figures) -> list[tuple[str, Figures]]:
    """(threshold or "default", figures), one compressor after the other."""
    names = [row["compressor"] for row in figures["defaults"]]
    rows = [("default", row) for row in figures["defaults"]]
    rows += [(f"{row['threshold']:g}", row) for row in figures["thresholds"]]
    return sorted(rows, key=lambda pair: names.index(pair[1]["compressor"]))


def _thresholds(figures: Figures) -> str:
    head = ["compressor", "threshold", "answer kept", "words removed", "precision", "recall"]
    columns = ["answer_kept", "removed", "precision", "recall", "answerable_emptied", "unanswerable_emptied"]
    return _table(
        [*head, "answerable emptied", "unanswerable emptied"],
        [[row["compressor"], at, *(interval(row[column]) for column in columns)] for at, row in _choices(figures)],
    )


def _spans(figures: Figures) -> str:
    columns = ["span_precision", "span_recall", "span_f2"]
    rows = [
        [row["compressor"], at, *(interval(row[column]) for column in columns)]
        for at, row in _choices(figures)
        if row["span_f2"]["n"]
    ]
    return _table(["compressor", "threshold", "span precision", "span recall", "span F2"], rows)


def _levels(rows: Sequence[Figures]) -> str:
    head = ["compressor", "answers to keep", "answers kept", "threshold", "words removed"]
    return _table(
        head,
        [
            [
                row["compressor"],
                f"{row['level']:.0%}",
                *_numbers(row, "answer_kept", "threshold"),
                interval(row["removed"]),
            ]
            for row in rows
        ],
    )


def _emptied(rows: Sequence[Figures]) -> str:
    head = ["compressor", "answerable that may be emptied", "answerable emptied", "threshold", "unanswerable emptied"]
    return _table(
        head,
        [
            [
                row["compressor"],
                f"{row['cost']:.0%}",
                *_numbers(row, "answerable_emptied", "threshold"),
                interval(row["unanswerable_emptied"]),
            ]
            for row in rows
            if row["unanswerable_emptied"]["n"] and not math.isnan(row["threshold"])
        ],
    )


def _ranks(rows: Sequence[Figures]) -> str:
    return _table(
        ["ranker", "questions", "MRR", "nDCG@10", "MAP", "gold first"],
        [
            [row["ranker"], f"{row['questions']:,}", *_numbers(row, "mrr", "ndcg10", "map", "gold_first")]
            for row in rows
        ],
    )


def _reliability(bins: Sequence[Figures]) -> str:
    return _table(
        ["probability", "sentences", "predicted", "relevant"],
        [
            [f"{each['low']:.1f}–{each['high']:.1f}", f"{each['count']:,}", *_numbers(each, "predicted", "observed")]
            for each in bins
        ],
    )


def _numbers(row: Figures, *names: str) -> list[str]:
    return [number(row[name]) for name in names]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; "" without rows."""
    return compact(head, rows) if rows else ""


def number(value: float) -> str:
    """Three places; a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def interval(figures: Figures) -> str:
    """The mean with the ends of its interval; a dash where nothing was measured."""
    if not figures["n"]:
        return "–"
    return f"{number(figures['mean'])} [{number(figures['low'])}, {number(figures['high'])}]"


def _signed(figures: Figures) -> str:
    if not figures["n"]:
        return ""
    return f"{figures['mean']:+.3f} [{figures['low']:+.3f}, {figures['high']:+.3f}]"


def reliability_plot(sets: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """One curve a set and compressor: the share of relevant sentences over the predicted probability.

    sets: the figures of `evaluate` by name. Raises MissingExtraError without matplotlib.
    """
    require_matplotlib()
    # the object interface, so that no backend and no global figure state is touched
    figure = import_module("matplotlib.figure").Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted probability", ylabel="share relevant", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfect")
    for name, figures in sets.items():
        for row in figures["calibration"]:
            predicted, observed = ([each[key] for each in row["bins"]] for key in ("predicted", "observed"))
            axes.plot(predicted, observed, marker="o", label=f"{name}, {row['compressor']} (ECE {row['ece']:.3f})")
    axes.legend(fontsize="small")
    figure.savefig(path)


def require_matplotlib() -> None:
    """Raise MissingExtraError unless matplotlib is installed, so that a long run can fail before it starts."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise MissingExtraError("the reliability plot", "bench") from error
