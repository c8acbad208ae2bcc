"""The tables of answers kept, words removed and operating points, as README and docs have them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from benchmarks.quality.report import interval, number
from ctxprune.errors import InputError
from ctxprune.eval.report.markdown import compact

Figures = Mapping[str, Any]

#: How the pages call a set; a rung of the ladder is called by what stands behind its number.
TITLES = {
    "squad11_dev_visible_10docs": "SQuAD, 10 passages",
    "hotpotqa_dev_visible": "HotpotQA, 10 passages",
    "covidqa": "COVID-QA, 5 passages",
    "qed_dev_visible": "QED (web questions), 1 passage",
    "qed_dev_visible+pool": "QED, among 10 chunks",
    "qed_dev_visible+pool100": "QED, among 100 chunks",
    "tatqa_dev": "TAT-QA (tables), 6 passages",
    "squad20_dev_visible": "SQuAD 2.0, 1 passage",
    "squad20_dev_visible+pool": "SQuAD 2.0, among 10 chunks",
    "manuals": "reference texts, 1 whole document",
    "qmsum_val_whole_meetings": "QMSum, 1 whole meeting",
    "contractnli_dev": "ContractNLI, a contract in windows",
}
#: Those of the README.
SHORT = {
    "squad11_dev_visible_10docs": "SQuAD, 10 passages",
    "hotpotqa_dev_visible": "HotpotQA, 10 passages",
    "covidqa": "COVID-QA, 5 passages",
    "qed_dev_visible+pool": "web questions among 10 chunks",
    "tatqa_dev": "TAT-QA (tables), 6 passages",
}
#: The set of the README's first sentence.
FIRST = "squad11_dev_visible_10docs"
_CONTENDERS = {"bm25-sentences": "BM25 sentences", "rerank-truncate": "rerank, then truncate"}
_MARKS = {"win": " +", "loss": " **−**", "tie": "", "none": ""}
_WIDTH = 120


def equal_words(figures: Figures) -> str:
    """Answer kept at each budget, every set, ours in bold."""
    return _equal_words(figures, {name: TITLES.get(name, name) for name in figures["sets"]}, "n", bold=True)


def equal_words_short(figures: Figures) -> str:
    """The same for the sets of the README."""
    return _equal_words(figures, SHORT, "questions", bold=False)


def _equal_words(figures: Figures, titles: Mapping[str, str], count: str, *, bold: bool) -> str:
    rows, ours, budgets = [], "", ""
    for name, title in titles.items():
        one = _set(figures, name)
        ours, budgets = one["budgets"][0]["compressor"], " / ".join(map(str, _budgets(one)))
        kept = " / ".join(_two_places(_kept(one, ours, budget)) for budget in _budgets(one))
        cells = [" / ".join(_marked(one, baseline, budget) for budget in _budgets(one)) for baseline in _CONTENDERS]
        rows.append([title, f"{one['questions']:,}", f"**{kept}**" if bold else kept, *cells])
    head = ["set", count, f"{ours} {budgets}" if bold else ours, *_CONTENDERS.values()]
    return _left(compact(head, rows), from_column=2)


def _left(table: str, *, from_column: int) -> str:
    """The table with its columns from this one on left-aligned: lists of figures are read from their beginning."""
    head, rule, *rows = table.split("\n")
    cells = rule.split(" | ")
    rule = " | ".join([*cells[:from_column], *(cell.replace("---:", "---") for cell in cells[from_column:])])
    return "\n".join([head, rule, *rows])


def tally(figures: Figures) -> str:
    """How often ours wins and loses, of how many comparisons."""
    verdicts = [row["verdict"] for one in figures["sets"].values() for row in one["differences"]]
    told = [verdict for verdict in verdicts if verdict != "none"]
    return f"{told.count('win')} wins and {told.count('loss')} losses in {len(told)}"


def first_sentence(figures: Figures) -> str:
    """Words removed and answers kept at the defaults on ten passages."""
    one = _set(figures, FIRST)["defaults"][0]
    removed, kept = one["removed"]["mean"], one["answer_kept"]["mean"]
    return f"**{removed:.0%} of the words and keeps {kept:.0%} of the answers**"


def defaults(figures: Figures) -> str:
    """Every set at the default operating point."""
    head = [
        "set", "answer kept", "words removed", "removed at 95 / 98 / 99% kept", "gold first",
        "emptied: answerable / unanswerable", "calibration error",
    ]  # fmt: skip
    rows = []
    for name, one in figures["sets"].items():
        row = one["defaults"][0]
        gold = [each["gold_first"] for each in one["ranks"] if each["ranker"] == row["compressor"]]
        emptied = (number(row[kind]["mean"]) for kind in ("answerable_emptied", "unanswerable_emptied"))
        order = number(gold[0]) if gold else "–"
        title = TITLES.get(name, name)
        rows.append([title, *_kept_and_removed(row), _levels(one), order, " / ".join(emptied), _calibration(one)])
    return compact(head, rows)


def side_by_side(figures: Figures) -> str:
    """Every compressor of the run on every set: at its defaults, then answers kept at each budget."""
    rows, budgets = [], ""
    for name, one in figures["sets"].items():
        budgets = " / ".join(map(str, _budgets(one)))
        for row in one["defaults"]:
            mine = row["compressor"]
            kept = " / ".join(_two_places(_kept(one, mine, budget)) for budget in _budgets(one))
            rows.append([TITLES.get(name, name), f"`{mine}`", *_kept_and_removed(row), kept])
    return _left(compact(["set", "", "answer kept", "words removed", f"kept at {budgets} words"], rows), from_column=2)


def emptied(figures: Figures) -> str:
    """Of every compressor on every set: the answerable and the unanswerable contexts of which nothing is kept."""
    head = ["set", "", "answer kept", "answerable emptied", "unanswerable emptied"]
    rows = [
        [TITLES.get(name, name), f"`{row['compressor']}`"]
        + [interval(row[key]) for key in ("answer_kept", "answerable_emptied", "unanswerable_emptied")]
        for name, one in figures["sets"].items()
        for row in one["defaults"]
    ]
    return _left(compact(head, rows), from_column=2)


def near_english(figures: Figures) -> str:
    """Of the other languages, those where at 98% kept as much can go as in English, or at most .08 less."""
    at = {
        name.rpartition(" ")[2]: next(row["removed"]["mean"] for row in one["removed_at"] if row["level"] == 0.98)
        for name, one in figures["sets"].items()
    }
    english = at.pop("en")
    return f"{sum(share >= english - 0.08 for share in at.values())} of {len(at)}"


def ladder(figures: Figures) -> str:
    """The rungs of a ladder: the same questions with more and more text around the answer."""
    head = [
        "SQuAD questions over", "n", "answer kept", "words removed", "removed at 95 / 98 / 99% kept", "emptied",
        "calibration error",
    ]  # fmt: skip
    rows = []
    for name, one in figures["sets"].items():
        row = one["defaults"][0]
        emptied = number(row["answerable_emptied"]["mean"])
        rung = name.rpartition(": ")[2]
        rows.append([rung, str(one["questions"]), *_kept_and_removed(row), _levels(one), emptied, _calibration(one)])
    return compact(head, rows)


def command(figures: Figures) -> str:
    """The command that made the figures, as a block of the page, broken at its options."""
    lines, line = [], ""
    for part in _options(shlex.split(figures["command"])):
        if line and len(line) + len(part) + 3 > _WIDTH - 8:
            lines.append(line)
            line = ""
        line += f" {part}" if line else part
    return "    " + " \\\n        ".join([*lines, line])


def _options(words: list[str]) -> list[str]:
    """The words, an option together with its value if it has a single one."""
    parts: list[str] = []
    for at, word in enumerate(words):
        is_value = at > 0 and words[at - 1].startswith("--") and not word.startswith("--")
        is_single = at + 1 == len(words) or words[at + 1].startswith("--")
        if is_value and is_single:
            parts[-1] += f" {shlex.quote(word)}"
        else:
            parts.append(shlex.quote(word))
    return parts


def _set(figures: Figures, name: str) -> Figures:
    try:
        one: Figures = figures["sets"][name]
    except KeyError:
        raise InputError(f"the figures have no set {name!r}, only {', '.join(figures['sets'])}; run it again") from None
    return one


def _budgets(one: Figures) -> list[int]:
    return list(dict.fromkeys(row["budget"] for row in one["budgets"]))


def _kept(one: Figures, compressor: str, budget: int) -> float:
    kept = {(row["compressor"], row["budget"]): row["answer_kept"]["mean"] for row in one["budgets"]}
    return float(kept[compressor, budget])


def _marked(one: Figures, baseline: str, budget: int) -> str:
    """A baseline's figure, and whether ours is better or worse."""
    verdicts = {(row["baseline"], row["budget"]): row["verdict"] for row in one["differences"]}
    return _two_places(_kept(one, baseline, budget)) + _MARKS[verdicts[baseline, budget]]


def _two_places(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")


def _kept_and_removed(row: Figures) -> list[str]:
    return [interval(row["answer_kept"]), interval(row["removed"])]


def _levels(one: Figures) -> str:
    ours = one["defaults"][0]["compressor"]
    return " / ".join(number(row["removed"]["mean"]) for row in one["removed_at"] if row["compressor"] == ours)


def _calibration(one: Figures) -> str:
    ours = one["defaults"][0]["compressor"]
    return next((number(row["ece"]) for row in one["calibration"] if row["compressor"] == ours), "–")


def points_table(figures: Figures) -> str:
    """A row a set and point. figures: {"sets": {name: {point: figures}}, "drift": {name: index}}."""
    rows = []
    for name, points in figures["sets"].items():
        index = figures["drift"][name]
        title, drift = TITLES.get(name, name), "–" if math.isnan(index) else f"{index:.2f}"
        for point, row in points.items():
            rows.append([title, f"{row['loss']['n']:,}", point, *_point_cells(row), drift])
            title = drift = ""
    head = ["set", "n", "point", "target", "thresholds", "realised loss [95%]", "words removed", "drift"]
    return compact(head, rows)


def _point_cells(row: Figures) -> list[str]:
    loss, (low, high) = row["loss"], row["thresholds"]
    threshold = f"{low:.3f}" if low == high else f"{low:.3f} – {high:.3f}"
    realised = f"{number(loss['mean'])} [{number(loss['low'])}, {number(loss['high'])}]"
    mark = " **above**" if row["is_above"] else ""
    return [number(row["target"]), threshold, realised + mark, f"{row['removed']:.0%}"]
