"""Tables of README and docs: written from files of figures, and none without a command."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from docs_pages import commands

from benchmarks.measure import repeating
from benchmarks.quality.figures import read_figures, shown, write_figures
from benchmarks.tables import __main__ as tables
from benchmarks.tables import quality, readers, soft, speed
from benchmarks.tables.__main__ import FIGURES, MADE, ROOT, pages, rewritten
from ctxprune.errors import InputError

FIGURE = re.compile(r"[*+−–\s]*\.?\d[\d.,]*%?([\s/,\[\]*+−–-]|\.?\d[\d.,]*%?)*")
MADE_PAGES = [page for page in pages() if "<!-- made:" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_pages_say_what_the_files_of_figures_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert rewritten(text) == text, f"`make tables` writes {page.name} anew"


def test_the_readme_and_the_results_are_among_them() -> None:
    assert {"README.md", "benchmark-results.md"} <= {page.name for page in MADE_PAGES}


@pytest.mark.parametrize("page", MADE_PAGES, ids=lambda page: page.name)
def test_marks_are_whole_and_no_figure_in_a_sentence_begins_its_line(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- made:") == text.count("<!-- end -->") == len(MADE.findall(text))
    for mark in MADE.finditer(text):
        is_block = mark["text"].startswith("\n")
        # Markdown takes a line that begins with a comment for HTML, whose stars and links stay as they are
        assert is_block == (mark.start() == 0 or text[mark.start() - 1] == "\n"), mark[0][:60]


@pytest.mark.parametrize("name", ["quality.json", "ladder.json"])
def test_another_figure_makes_another_page(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "figures"
    shutil.copytree(FIGURES, folder)
    figures = read_figures(folder / name)
    for one in figures["sets"].values():
        one["defaults"][0]["answer_kept"]["mean"] = 0.123
    write_figures(figures, folder / name)
    texts = [page.read_text(encoding="utf-8") for page in MADE_PAGES]
    changed = [rewritten(text, folder) for text in texts]
    assert changed != texts and any("0.123" in text for text in changed)


def test_a_figure_changed_by_hand_is_written_back() -> None:
    text = "before <!-- made: first_sentence quality.json -->**99% of the words**<!-- end --> after"
    made = rewritten(text)
    assert made.startswith("before <!-- made: first_sentence quality.json -->**")
    assert made.endswith("**<!-- end --> after")
    assert "99% of the words*" not in made and rewritten(made) == made


@pytest.mark.parametrize(
    ("mark", "message"),
    [("of_nothing quality.json", "no table 'of_nothing'"), ("ladder missing.json", "missing.json")],
)
def test_wrong_marks_are_told(mark: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        rewritten(f"<!-- made: {mark} -->\n\nx\n\n<!-- end -->")


def sections(text: str) -> list[tuple[list[str], str]]:
    """Each section's headings, the outermost first, with its own text."""
    found, path = [], list[str]()
    for part in re.split(r"^(?=#{1,6} )", text, flags=re.MULTILINE):
        level = len(part) - len(part.lstrip("#"))
        if level:
            path = [*path[: level - 1], part.split("\n", 1)[0]]
        found.append((list(path), part))
    return found


def tables_of_figures(text: str) -> list[str]:
    """The head of each table outside the marks that has a column of nothing but figures."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", MADE.sub("", text), flags=re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
        columns = zip(*(row for row in rows[2:] if len(row) == len(rows[0])), strict=True)
        if any(all(FIGURE.fullmatch(cell) for cell in column) for column in columns):
            found.append(" | ".join(rows[0]))
    return found


def without_command(text: str) -> list[str]:
    """Tables of figures in a section that shows no command, nor does one that encloses it."""
    parts = sections(text)
    with_command = [path for path, part in parts if commands(part)]
    return [
        head
        for path, part in parts
        for head in tables_of_figures(part)
        if not any(path[: len(other)] == other for other in with_command)
    ]


@pytest.mark.parametrize("name", ["README.md", "docs/benchmark-results.md", "docs/benchmarking.md"])
def test_no_table_of_figures_is_without_a_command(name: str) -> None:
    assert without_command((ROOT / name).read_text(encoding="utf-8")) == []


def test_a_table_without_a_command_is_found() -> None:
    table = "| arm | kept |\n| --- | ---: |\n| ours | .91 [.88, .94] |\n| theirs | 86% |\n"
    words = "| option | effect |\n| --- | --- |\n| `threshold=0.1` | 3 sentences |\n"
    assert without_command(f"# Page\n\n{table}\n## Other\n\n    make bench\n") == ["arm | kept"]
    assert without_command(f"# Page\n\n{words}") == []
    assert without_command(f"# Page\n\n## One\n\n    ctxprune run\n\n### Two\n\n{table}") == []
    assert len(tables_of_figures((ROOT / "docs" / "xrag.md").read_text(encoding="utf-8"))) >= 2


@pytest.mark.parametrize(
    "line",
    [
        "python -m benchmarks.quality --data a.jsonl.gz b.jsonl.gz --budgets '' --limit 3",
        "python -m benchmarks.quality --manuals --compressors " + ",".join(f"name{n}" for n in range(30)) + " --seed 1",
        "python -m benchmarks.quality --data " + " ".join(f"set{n}_dev_visible.jsonl.gz" for n in range(12)),
    ],
)
def test_a_command_is_broken_into_lines_without_a_change(line: str) -> None:
    block = quality.command({"command": line})
    assert all(row.startswith("    ") for row in block.split("\n"))
    assert shlex.split(block.replace("\\\n", " ")) == shlex.split(line)
    assert [shlex.join(words) for words in commands(block)] == [shlex.join(shlex.split(line))]


def test_figures_are_written_with_null_for_what_was_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    write_figures({"command": "x", "sets": {"a": {"ece": float("nan"), "kept": 1 / 3}}}, path)
    assert json.loads(path.read_text())["sets"] == {"a": {"ece": None, "kept": 0.333333}}
    assert read_figures(path)["sets"]["a"]["ece"] != read_figures(path)["sets"]["a"]["ece"]  # NaN


def test_what_is_shown_is_all_that_the_tables_read() -> None:
    for name, makers in (("quality.json", ["equal_words", "tally", "defaults"]), ("ladder.json", ["ladder"])):
        figures = read_figures(FIGURES / name)
        with_more = {**figures, "sets": {key: {**one, "thresholds": [1]} for key, one in figures["sets"].items()}}
        assert list(shown(with_more)["sets"].values()) != list(with_more["sets"].values())
        for maker in makers:
            assert tables.MAKERS[maker](shown(with_more)) == tables.MAKERS[maker](figures)


def run_folder(folder: Path, **changes: object) -> Path:
    """A finished run of four arms on one set; `provence` answers more than all passages and fewer than the reranker."""

    def mean(value: float) -> dict[str, float]:
        return {"mean": value, "low": value - 0.1, "high": value + 0.1, "n": 50}

    def row(arm: str, tokens: int, match: float, **settings: object) -> dict[str, object]:
        named = ("match", "f1", "answer_in_context", "failed", "compress_seconds", "generate_seconds")
        versus = {"difference": match - 0.2, "low": match - 0.25, "high": match - 0.15, "p": 1, "n": 50}
        return {
            "dataset": "geese", "compressor": arm, "settings": settings, "n": 50, "tokens_before": 400,
            "arm": " ".join([arm, *(f"{key}={value}" for key, value in settings.items())]), "tokens_after": tokens,
            "metrics": {name: mean(match) for name in named},
            "vs_full": {} if arm == "full" else {"match": versus, "tokens_after": versus}, "vs_rerank": {},
            "vs_baselines": {} if "threshold" not in settings else
            {"rerank-truncate": {"match": {"difference": -0.1, "low": -0.2, "high": -0.01}}},
        }  # fmt: skip

    ours, theirs = row("provence", 80, 0.5, threshold=0.2), row("rerank-truncate", 80, 0.6)
    theirs |= {"settings": {"tokens_of": ours["arm"]}, "arm": f"rerank-truncate tokens_of={ours['arm']}"}
    folder.mkdir()
    rows = [theirs, row("gold-documents", 90, 0.21), row("full", 400, 0.2), ours]
    write_figures({"rows": rows, "versions": {}, **changes}, folder / "results.json")
    write_figures({"command": "ctxprune eval run docs/geese.yaml"}, folder / "env.json")
    return folder / "results.json"


def test_a_run_of_answers_becomes_tables(tmp_path: Path) -> None:
    figures = tables.taken(run_folder(tmp_path / "run"))
    write_figures(figures, tmp_path / "geese.json")
    figures = read_figures(tmp_path / "geese.json")
    table = readers.answers(figures).splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == [
        *("geese (n = 50)", "all passages", "the labelled passages"),
        *("`provence threshold=0.2`", "rerank, then truncate, same tokens"),
    ]
    assert "| 80 | 50 [40, 60] | 50 [40, 60] | 50 [40, 60] | **+30 [+25, +35]** | **-10 [-20, -1]** |" in table[5]
    assert "| +1 [-4, +6] |" in table[4] and table[3].endswith("50%] |  |  |".replace("50%", "30"))
    assert readers.more_than_all(figures) == "1 more and 0 fewer in 1"
    assert readers.more_than_rerank(figures) == "0 more and 1 fewer in 1"
    assert readers.more_than_bm25(figures) == "0 more and 0 fewer in 0"
    assert "`provence threshold=0.2` | 80 | 0.50 | 0.50 | 1.00" in readers.first_token(figures)
    assert len(readers.answers_short(figures).splitlines()) == 2 + 4
    assert quality.command(figures) == "    ctxprune eval run docs/geese.yaml"


def test_a_report_of_soft_tokens_becomes_tables(tmp_path: Path) -> None:
    def mean(value: float, spread: float = 0.1) -> dict[str, float]:
        return {"mean": value, "low": value - spread, "high": value + spread, "n": 5}

    def arm(nats: float, match: float) -> dict[str, object]:
        return {"nats": mean(nats), "match": mean(match), "prompt_tokens": 60.4}

    one = {
        "questions": 1200,
        "arms": {"closed book": arm(6, 0.1), "xRAG": arm(5, 0.3), "best sentence": arm(3, 0.4), "text": arm(1, 0.5)},
        "xrag_minus": {"closed book": {"nats": mean(-1), "match": mean(0.2)}},
        "mixed_minus": {"best sentence": {"nats": mean(-0.05), "match": mean(-0.3)}},
    }
    other = {**one, "questions": 7, "arms": {"closed book": arm(2, 0)}, "mixed_minus": {}}
    found = {"nats": {"true": mean(3), "none": mean(4)}, "minus_true": {"none": mean(1)}, "true_better": {}}
    report = {
        "bridge": {}, "command": "python -m benchmarks.soft --bridge b --questions /tmp/held.jsonl --out /tmp/x",
        "sets": {"squad11_dev": one, "harbours_dev": other}, "passages": found,
        "identification": {"passages": 40, "right": mean(0.7)},
    }  # fmt: skip
    write_figures(report, tmp_path / "report.json")
    figures = tables.taken(tmp_path / "report.json")
    assert figures["command"] == "python -m benchmarks.soft --bridge b --questions held.jsonl"
    rows = soft.answers(figures).splitlines()
    assert rows[0].startswith("| context | SQuAD tokens | SQuAD nats | SQuAD match | HARBOURS tokens")
    assert rows[3] == "| **its own vectors** | 60 | 5.00 [4.90, 5.10] | 30 [20, 40] |  |  |  |" and len(rows) == 6
    assert [row.split(" | ")[1:4:2] for row in soft.differences(figures).splitlines()[2:]] == [
        ["**-1.00 [-1.10, -0.90]**", "**-1.00 [-1.10, -0.90]**"],
        ["-0.05 [-0.15, +0.05]", ""],
    ]
    assert soft.passages(figures).splitlines()[-1] == "| none | 4.00 [3.90, 4.10] | **+1.000 [+0.900, +1.100]** |  |"
    assert (soft.named(figures), soft.asked(figures)) == ("70% [60, 80] of 40 passages", "1,200 and 7")


def test_a_run_without_answers_tells_what_is_kept_at_each_rate(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run")
    results = json.loads(path.read_text())
    kept = {0.5: 0.4, 0.25: 0.3}
    results["rows"] = [
        {**results["rows"][0], "compressor": name, "arm": f"{name} rate={rate}", "settings": {"rate": rate}}
        | {"metrics": {"answer_in_context": {"mean": more + mean, "low": 0.1, "high": 0.9, "n": 50}}}
        for name, more in (("lead", 0.0), ("words", 0.5))
        for rate, mean in kept.items()
    ]
    path.write_text(json.dumps(results))
    figures = tables.taken(path)
    assert readers.kept_at_rates(figures).splitlines() == [
        "|  | geese, 50% of tokens | geese, 25% of tokens |",
        "| --- | ---: | ---: |",
        "| `lead` | 40 [10, 90] | 30 [10, 90] |",
        "| `words` | 90 [10, 90] | 80 [10, 90] |",
    ]
    with pytest.raises(InputError, match="the run has no answers"):
        readers.answers(figures)


def test_a_run_of_best_sentences_has_a_line_for_each_set_and_compressor(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "run")
    results = json.loads(path.read_text())

    def row(name: str, mean: float, settings: dict[str, int]) -> dict[str, Any]:
        kept = {"answer_in_context": {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 50}}
        return {**results["rows"][0], "compressor": name, "arm": name, "settings": settings, "metrics": kept}

    choices = [(", top 1", 0.5, {}), (", top 4", 1.0, {}), ("", 0.25, {"budget": 30}), ("", 0.76, {"budget": 90})]
    results["rows"] = [row(f"{name}{end}", mean, chosen) for name in ("b", "a") for end, mean, chosen in choices]
    results["rows"].append(row("gold", 0.9, {}))
    path.write_text(json.dumps(results))
    assert readers.kept_by_sentences(tables.taken(path)).splitlines() == [
        "| set | sentences by | top 1 / 4 | 30 / 90 tokens | 95% interval of top 1 |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| geese | `b` | .50 / 1.00 | .25 / .76 | [0.40, 0.60] |",
        "|  | `a` | .50 / 1.00 | .25 / .76 | [0.40, 0.60] |",
    ]


def test_a_command_is_shown_without_the_folders_of_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "geese.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    argv = ["--data", "/data/geese.jsonl", "sets/geese.jsonl", "--model", "org/model", "--out", "/tmp/o", "--top", "3"]
    shown = "python -m benchmarks.x --data geese.jsonl geese.jsonl --model org/model --top 3"
    assert repeating("x", argv) == shown
    joined = ["--data=/data/geese.jsonl", "--scratch=/tmp/s", "--note", "a b/c", "--to=here/there"]
    assert repeating("x", joined) == "python -m benchmarks.x --data=geese.jsonl --note 'a b/c' --to=here/there"


def test_a_report_of_peers_becomes_a_table_without_the_folders_of_its_machine(tmp_path: Path) -> None:
    kept = {"40": {"answer_kept": 0.75}, "80": {"answer_kept": None}}
    ran = {"status": "ran", "median_seconds": 0.0314, "p95_seconds": 0.05, "peak_mb": 1234.4, "budgets": kept}
    rows = [
        {"peer": "ours", "versions": {"ctxprune-rag": "0.1.0"}, **ran},
        {"peer": "theirs", "versions": {"theirs": "2.0", "torch": "3.1"}, **ran},
        {"peer": "gone", "versions": {}, "status": "missing", "reason": "no such package", "budgets": {}},
    ]
    command = "python -m benchmarks.peers --data /data/geese.jsonl --environments /tmp/peers --limit 3 --out /tmp/o"
    write_figures({"command": command, "budgets": [40, 80], "rows": rows}, tmp_path / "peers.json")
    figures = tables.taken(tmp_path / "peers.json")
    assert quality.command(figures) == "    python -m benchmarks.peers --data geese.jsonl --limit 3"
    assert speed.peers(figures).splitlines()[2:] == [
        "| `ours` | 0.031 | 0.050 | 1,234 | 0.75 | – |",
        "| `theirs` | 0.031 | 0.050 | 1,234 | 0.75 | – |",
        "| gone: missing |  |  |  |  |  |",
    ]
    assert speed.peer_versions(figures) == "theirs 2.0"
    slower = [
        {**rows[1], "peer": name, "median_seconds": 0.0314 * more}
        for name, more in (("langchain", 2), ("llmlingua", 7.06))
    ]
    assert speed.times_as_fast({**figures, "rows": [*rows, *slower]}) == "2.0 to 7.1 times"


def test_a_report_of_speed_becomes_tables(tmp_path: Path) -> None:
    timing = {"median": 0.0123, "p95": 0.02, "low": 0.01, "high": 0.03}
    contender = {"passage_tokens_per_second": 4321.0, "flops_per_second": 3e9, "dtype": "int8", "speed_up": None}
    fast = {**contender, "name": "b", "seconds": {"median": 3.6}, "speed_up": {"median": 2.04, "low": 1.0, "high": 3.0}}
    grown = [{"size": 5, "exponent": None}, {"size": 5000, "exponent": 0.875}]
    report = {
        "command": "python -m benchmarks.speed --quick",
        "cold_start": {"rows": [{"name": "import"}, {"name": "start", "seconds": timing, "peak_mb": 98.7}]},
        "warm": [{"name": "ours", "seconds": timing}],
        "throughput": {
            "peaks": {"int8": 12e9},
            "sizes": [
                {"passages": 70},
                {"passages": 4000, "rows": [{**contender, "name": "a", "seconds": {"median": 4.0}}, fast]},
            ],
        },
        "growth": {"documents": grown, "words": [{"size": 20, "exponent": 1.04}]},
        "threads": {"threads": 3, "seconds": 2.0, "requests": 1234, "mismatches": 5},
    }
    write_figures(report, tmp_path / "bench.json")
    figures = tables.taken(tmp_path / "bench.json")
    assert speed.latency(figures).splitlines()[2:] == [
        "| cold: `start`, start to exit | 12 | 20 | 99 |",
        "| warm: `ours`, one call | 12 | 20 |  |",
    ]
    assert speed.throughput(figures).splitlines()[2:] == [
        "| a | 4,321 | – | 25% of int8 |",
        "| b | 4,321 | 2.0 [1.0, 3.0] | 25% of int8 |",
    ]
    assert (speed.growth(figures), speed.second_look(figures)) == ("0.88 to 1.04", "10%")
    assert speed.timed(figures) == "4,000 passages"
    assert speed.grown(figures) == "documents (5 to 5,000) and of words in one document (20 to 20)"
    assert speed.threads(figures) == "3 threads made 1,234 requests in 2 seconds, 5 answers unlike those of one thread"
    assert (speed.warm(figures), speed.cold(figures)) == ("12 ms", "0.01 s")
