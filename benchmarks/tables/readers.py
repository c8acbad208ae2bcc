"""What full, pruned and baseline contexts hold, and what generators answer from them: tables of `ctxprune eval run`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.tables.cells import percent, signed
from ctxprune.errors import InputError
from ctxprune.eval.report.folder import RERANK, by_dataset, is_baseline, is_reference, is_tested
from ctxprune.eval.report.markdown import compact

Figures = Mapping[str, Any]

_METRICS = ("match", "f1", "answer_in_context", "failed", "compress_seconds", "generate_seconds")
_BM25 = "bm25-sentences"
#: Between a compressor's name and how many sentences it keeps.
_TOP = ", top "
_NAMES = {
    "none": "no context",
    "full": "all passages",
    "gold": "the labelled sentences",
    "gold-documents": "the labelled passages",
    RERANK: "rerank, then truncate, same tokens",
    _BM25: "BM25 sentences, same tokens",
}
#: Of an arm that is compared with another, by the column of its row.
_AGAINST = {"vs_full": "match against all", RERANK: "match against rerank", _BM25: "match against BM25"}


def shown(results: Figures, command: str) -> dict[str, Any]:
    """What the tables need of a results.json; a run without a generator has no answers, and tables of none."""
    sets = {name: [_row(row) for row in rows] for name, rows in by_dataset(results).items()}
    return {"command": command, "sets": sets}


def _row(row: Figures) -> dict[str, Any]:
    against = {"vs_full": row["vs_full"], **row["vs_baselines"]}
    return {
        **{name: row[name] for name in ("arm", "compressor", "settings", "n", "tokens_before", "tokens_after")},
        "metrics": {name: row["metrics"][name] for name in _METRICS if name in row["metrics"]},
        "against": {name: _difference(cells["match"]) for name, cells in against.items() if "match" in cells},
    }


def _difference(cell: Figures) -> dict[str, Any]:
    return {name: cell[name] for name in ("difference", "low", "high")}


def answers(figures: Figures) -> str:
    """Every arm of every set: tokens, match, F1, answers kept, and the differences of the match.

    Raises InputError for a run without a generator.
    """
    if not any(row["metrics"].get("failed", {}).get("n") for rows in figures["sets"].values() for row in rows):
        raise InputError("the run has no answers; give it a generator")
    compared = {name for rows in figures["sets"].values() for row in rows for name in row["against"]}
    others = [name for name in _AGAINST if name in compared]
    head = ["context", "tokens", "match", "F1", "answer in context", *(_AGAINST[name] for name in others)]
    lines = []
    for name, rows in figures["sets"].items():
        lines += [[f"{name} (n = {rows[0]['n']:,})", *[""] * (len(head) - 1)]]
        lines += [_line(row, others) for row in rows]
    return compact(head, lines)


def _line(row: Figures, others: Sequence[str]) -> list[str]:
    against = [_points(row["against"].get(name)) for name in others]
    return [_name(row), f"{row['tokens_after']:,.0f}", *map(percent, _cells(row)), *against]


def _cells(row: Figures) -> Iterator[Figures]:
    yield from (row["metrics"][name] for name in ("match", "f1", "answer_in_context"))


def kept_at_rates(figures: Figures) -> str:
    """Percent of questions whose answer still stands in the kept text, at every rate of tokens, set by set."""
    sets = figures["sets"]
    rates = dict.fromkeys(
        row["settings"]["rate"] for rows in sets.values() for row in rows if "rate" in row["settings"]
    )
    cells: dict[str, list[str]] = {}
    for rows in sets.values():
        for rate in rates:
            for row in (row for row in rows if row["settings"].get("rate") == rate):
                cells.setdefault(row["compressor"], []).append(percent(row["metrics"]["answer_in_context"]))
    head = [f"{name}, {100 * rate:.0f}% of tokens" for name in sets for rate in rates]
    return compact(["", *head], [[f"`{name}`", *row] for name, row in cells.items()])


def kept_by_sentences(figures: Figures) -> str:
    """The share of questions whose answer still stands in the best n sentences ("NAME, top n") and in budgets of
    tokens, set by set and compressor by compressor; the interval is that of the first choice."""
    chosen: dict[tuple[str, str], dict[str, Figures]] = {}
    for name, rows in figures["sets"].items():
        for row in filter(is_tested, rows):
            compressor, _, count = row["compressor"].partition(_TOP)
            choice = f"{_TOP}{count}" if count else f"{row['settings']['budget']}"
            chosen.setdefault((name, compressor), {})[choice] = row["metrics"]["answer_in_context"]
    first = next(iter(chosen.values()))
    tops, budgets = ([each for each in first if each.startswith(_TOP) is flag] for flag in (True, False))
    numbers = " / ".join(each.removeprefix(_TOP) for each in tops)
    head = [
        "set",
        "sentences by",
        f"top {numbers}",
        f"{' / '.join(budgets)} tokens",
        f"95% interval of top {tops[0].removeprefix(_TOP)}",
    ]
    lines, above = [], ""
    for (name, compressor), cells in chosen.items():
        shares = (" / ".join(_share(cells[each]["mean"]) for each in choices) for choices in (tops, budgets))
        interval = f"[{cells[tops[0]]['low']:.2f}, {cells[tops[0]]['high']:.2f}]"
        lines.append(["" if name == above else name, f"`{compressor}`", *shares, interval])
        above = name
    return compact(head, lines)


def _share(mean: float) -> str:
    return f"{mean:.2f}".removeprefix("0")


def answers_short(figures: Figures) -> str:
    """Tokens and match of the first set, without the baselines of shared words."""
    rows = [row for row in next(iter(figures["sets"].values())) if row["compressor"] != _BM25]
    lines = [[_name(row), f"{row['tokens_after']:,.0f}", percent(row["metrics"]["match"])] for row in rows]
    return compact(["context", "tokens", "match"], lines)


def more_than_all(figures: Figures) -> str:
    """How often the pruned context answers more, and less, than all passages."""
    return _tally(figures, "vs_full")


def more_than_rerank(figures: Figures) -> str:
    """How often the pruned context answers more, and less, than the reranker's at the same tokens."""
    return _tally(figures, RERANK)


def more_than_bm25(figures: Figures) -> str:
    """How often the pruned context answers more, and less, than sentences by shared words at the same tokens."""
    return _tally(figures, _BM25)


def _tally(figures: Figures, against: str) -> str:
    rows = [row for each in figures["sets"].values() for row in each if is_tested(row)]
    found = [row["against"][against] for row in rows if against in row["against"]]
    wins, losses = sum(each["low"] > 0 for each in found), sum(each["high"] < 0 for each in found)
    return f"{wins} more and {losses} fewer in {len(found)}"


def first_token(figures: Figures) -> str:
    """Seconds until the first token, alone on the machine, and those of the compressor before it."""
    lines = []
    for rows in figures["sets"].values():
        for row in rows:
            prune, read = (row["metrics"][name]["mean"] for name in ("compress_seconds", "generate_seconds"))
            seconds = (f"{each:.2f}" for each in (prune, read, prune + read))
            lines.append([_name(row), f"{row['tokens_after']:,.0f}", *seconds])
    return compact(["context", "tokens", "seconds to prune", "to the first token", "together"], lines)


def _name(row: Figures) -> str:
    name = _NAMES.get(row["compressor"], "") if is_reference(row) or is_baseline(row) else f"`{row['arm']}`"
    return name or f"`{row['arm']}`"


def _points(difference: Figures | None) -> str:
    """Of a difference, in points."""
    return "" if difference is None else signed(difference["difference"], difference["low"], difference["high"])
