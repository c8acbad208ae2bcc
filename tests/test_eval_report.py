"""The report of a run: leaderboard, plots and the page, from a small run written by hand."""

import json
import re
import sys
import tracemalloc
from html.parser import HTMLParser

import fixtures_runs as runs
import numpy as np
import pytest

from ctxprune.errors import InputError, MissingExtraError
from ctxprune.eval.report import markdown
from ctxprune.eval.report import plots as run_plots
from ctxprune.eval.report.folder import by_dataset, check_results, headlines, open_run, score_name
from ctxprune.eval.report.html import write_report
from ctxprune.eval.report.leaderboard import board, in_short, leaderboard
from ctxprune.eval.report.plots import sweeps
from ctxprune.eval.report.samples import MOST_PAIRS, Pairs, digest

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.open = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open[-2:]), data))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = runs.write_run(tmp_path_factory.mktemp("runs") / "first")
    write_report(folder)
    return folder


@pytest.fixture
def no_plots(monkeypatch):
    """Drawing takes seconds; `reported` has the pictures."""
    monkeypatch.setattr("ctxprune.eval.report.html.draw", lambda *_: [])


# run_folder


def test_a_run_opens_and_streams_its_samples(tmp_path):
    run = open_run(runs.write_run(tmp_path / "r", environment={"cores": 2}))
    lines = list(run.samples())
    assert run.id == "r" and run.environment == {"cores": 2} and run.config.startswith("generator")
    assert [sample for _, sample in lines] == list(runs.samples())
    with run.open_samples() as file:
        assert all(run.read_sample(file, offset) == sample for offset, sample in reversed(lines))


def test_what_is_no_finished_run_is_said(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is no run"):
        open_run(tmp_path)
    folder = runs.write_run(tmp_path / "r")
    (folder / "results.json").unlink()
    with pytest.raises(InputError, match=r"not finished.*resume"):
        open_run(folder)
    (folder / "results.json").write_text('{"rows": [')
    with pytest.raises(InputError, match="not readable JSON"):
        open_run(folder)


def test_a_broken_line_is_named(tmp_path):
    folder = runs.write_run(tmp_path / "r")
    with (folder / "samples.jsonl").open("a") as file:
        file.write('{"dataset": "tow')
    with pytest.raises(InputError, match=r"samples.jsonl:81: broken JSON"):
        write_report(folder)
    assert not (folder / "report.html").exists() and not (folder / "leaderboard.md").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("n"), 'row 1 lacks the field "n"'),
        (lambda row: row.update(n="many"), "\"n\" must be int, got 'many'"),
        (lambda row: row["metrics"].update(f1={"mean": 1}), 'row 1, metrics, f1 lacks the field "low"'),
        (lambda row: row["vs_full"].update(f1=3), "row 1, vs_full, f1 must be an object"),
        (lambda row: row.update(arm="full"), "stand twice"),
    ],
)
def test_a_malformed_row_is_named(change, message):
    found = runs.results()
    change(found["rows"][1])
    with pytest.raises(InputError, match=re.escape(message)):
        check_results(found)


# leaderboard


def test_the_first_line_says_how_it_went():
    line = in_short(runs.results("towers", "bridges"))
    assert line == (
        "In short: against the full context 2 wins, 0 ties, 2 losses; against rerank at equal tokens 0 wins, 4 ties, "
        "0 losses; against lead at equal tokens 4 wins, 0 ties, 0 losses; 67 to 83% of the tokens removed."
    )
    text = leaderboard(runs.results("towers", "bridges"))
    assert text.split("\n\n")[1] == line
    old = runs.results("towers")
    for row in old["rows"]:
        del row["vs_baselines"]
    assert "against rerank" in in_short(check_results(old)) and "lead" not in in_short(old)
    assert in_short({"rows": [row for row in old["rows"] if row["arm"] == "full"]}).startswith("Nothing was tested")


def test_every_baseline_is_counted_and_stands_below_its_arm(tmp_path):
    board_text = leaderboard(runs.results("towers"))
    assert (
        "against full: win / tie / loss | against rerank: win / tie / loss | against lead: win / tie / loss"
        in board_text
    )
    folder = runs.write_run(tmp_path / "run")
    write_report(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.index('class="short"') < page.index("<table")
    tested = page.index('class="tested">provence threshold=0.1')
    baseline = page.index("lead <small>at its tokens</small>")
    assert tested < baseline < page.index('class="tested">provence threshold=0.5')
    assert "prefers-color-scheme: dark) { figure" in page


def test_the_leaderboard_shows_every_row_with_its_marks():
    text = leaderboard(runs.results("towers", "bridges"))
    for row in runs.results("towers", "bridges")["rows"]:
        assert text.count(f"| `{row['arm']}` ") >= 2
    (line,) = [line for line in text.split("## ")[3].splitlines() if line.startswith("| `provence threshold=0.1`")][:1]
    assert "24 → 8" in line and "66.7" in line and "50.0 [45.0, 55.0]" in line
    assert "+10.0 [+5.0, +15.0] win †" in line and "+1.0 [-4.0, +6.0] tie ‡" in line
    assert "-10.0 [-15.0, -5.0] **loss** †" in text  # provence threshold=0.5
    assert text == leaderboard(json.loads(json.dumps(runs.results("towers", "bridges"))))


def test_rows_stand_with_their_baselines_and_none_is_lost():
    found = runs.results()
    found["rows"].reverse()
    found["rows"].append(runs.row("towers", "lead", {"tokens_of": "an arm that is not here"}, 3, 5.0))
    arms = [row["arm"] for row in by_dataset(found)["towers"]]
    assert arms[:3] == ["full", "none", "gold"] and len(arms) == 9
    place = arms.index("provence threshold=0.1")
    assert {arms[place + 1], arms[place + 2]} == {
        "lead tokens_of=provence threshold=0.1",
        "rerank-truncate tokens_of=provence threshold=0.1",
    }


def test_the_score_is_the_first_that_was_measured():
    rows = runs.results(generator=False)["rows"]
    assert headlines(rows) == ["answer_in_context"] and score_name(rows) == "answer_in_context"
    assert score_name(runs.results()["rows"]) == "match"
    assert "sentence recall" not in board(rows, runs.results(generator=False)).head
    assert "match" not in leaderboard(runs.results(generator=False))


def test_names_cannot_break_the_markdown():
    found = runs.results("a|b\n# <script>")
    found["rows"][3]["arm"] = "x|y `z`"
    text = leaderboard(found)
    assert "<script>" not in text.replace(r"\<script\>", "").replace("`hash-a|b\n# <script>`", "").split("## Origin")[0]
    assert r"`` x\|y `z` ``" in text
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.split("## ")[2].splitlines() if line[:1] == "|"}
    assert len(widths) <= 2  # the board, and the differences of the other metrics


def test_a_table_is_aligned():
    lines = markdown.table(("arm", "n"), [("a", "1"), ("long", "1,000")]).splitlines()
    assert lines == ["| arm  |     n |", "| ---- | ----: |", "| a    |     1 |", "| long | 1,000 |"]


# cases


def test_the_worst_questions_come_first(reported):
    found = digest(open_run(reported))["towers"]
    assert (found.questions, found.lost) == (10, 3)
    # two arms lost questions 2 and 5, one lost 7; on the others nothing was lost
    with (reported / "samples.jsonl").open("rb") as file:
        ids = [open_run(reported).read_sample(file, case.offsets[case.arm])["id"] for case in found.cases]
    assert ids[:4] == ["q2", "q5", "q7", "q0"]
    assert found.cases[0].also == ("provence threshold=0.5",) and found.cases[0].against == "full"
    assert found.cases[2].arm == "provence threshold=0.5" and found.cases[2].loss == 1.0
    few = digest(open_run(reported), most=2)["towers"]
    assert few.cases == found.cases[:2] and few.lost == 3
    assert digest(open_run(reported), most=0)["towers"].cases == ()


def test_pairs_stay_few_and_spread():
    pairs = Pairs()
    for place in range(5 * MOST_PAIRS):
        pairs.add((place, 0.0))
    steps = np.diff([place for place, _ in pairs.kept])
    assert len(pairs.kept) <= MOST_PAIRS + 1 and len(set(steps)) == 1
    assert pairs.kept[-1][0] >= 4.9 * MOST_PAIRS


def test_memory_does_not_grow_with_the_samples(tmp_path, monkeypatch):
    monkeypatch.setattr("ctxprune.eval.report.samples.MOST_PAIRS", 20)

    def peak(n):
        run = open_run(runs.write_run(tmp_path / str(n), lines=runs.samples(n=n)))
        tracemalloc.start()
        digest(run, most=3)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(120) < 2 * peak(20)  # of files of 0.2 and 1 MB


# page


def test_the_page_stands_alone(reported):
    text = (reported / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in ("src", "href")]
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text
    ids = [value for name, value in page.attributes if name == "id"]
    assert {link[1:] for link in links if link[0] == "#"} <= set(ids) and len(ids) == len(set(ids))
    assert page.tags.count("img") == 3
    assert all(alt for name, alt in page.attributes if name == "alt")


def test_the_page_shows_kept_and_removed_text(reported):
    page = Page((reported / "report.html").read_text(encoding="utf-8"))
    kept = {data for path, data in page.texts if path[-1:] == ("mark",)}
    removed = {data for path, data in page.texts if path[-1:] == ("del",)}
    assert kept == {"Kept", runs.FULL_TEXTS[0][23:44]}
    assert {"The tower is in Paris. ", " Many people visit it.", runs.FULL_TEXTS[1]} <= removed
    text = "".join(data for _, data in page.texts)
    assert "10 of 10 questions are shown" in text and "hash-towers" in text and "Also lost by" in text
    assert text.index("When was tower 2 built?") < text.index("When was tower 7 built?")


ATTACK = "</style></details><script>alert(1)</script><img src=x onerror=alert(1)> \" ' & \ud800"


def test_nothing_of_the_run_is_read_as_html(tmp_path, no_plots):
    found = runs.results(ATTACK)
    found["versions"] = {ATTACK: ATTACK}
    for row in found["rows"]:
        row["metrics"][ATTACK] = runs.figure(0.5)
    texts = (ATTACK + runs.FULL_TEXTS[0], ATTACK)
    lines = list(runs.samples(ATTACK, query=ATTACK, prediction=ATTACK, texts=texts, answers=[ATTACK]))
    for line in lines:
        line["metrics"][ATTACK] = 1.0
        for document in line["documents"]:
            document |= {"title": ATTACK, "id": ATTACK}
            line["documents"][document["index"]] = document
    folder = runs.write_run(
        tmp_path / "r", found, lines, config=ATTACK.replace("\ud800", ""), environment={"x": ATTACK}
    )
    write_report(folder)
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags and "img" not in page.tags and page.tags.count("style") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in "".join(data for _, data in page.texts)
    assert "<script>" not in (folder / "leaderboard.md").read_text(encoding="utf-8").split("## Origin")[0]


def test_summaries_soft_tokens_and_a_run_without_full_context_are_shown(tmp_path, no_plots):
    found = runs.results()
    found["rows"] = [row for row in found["rows"] if row["arm"] != "full"]
    lines = [line for line in runs.samples() if line["arm"] != "full"]
    for line in lines:
        summary = {"index": 1, "id": "", "title": "", "text": "A summary.", "score": None, "dropped": False}
        soft = {"index": 2, "id": "s", "title": "", "text": "", "score": None, "dropped": False, "shape": [1, 8]}
        line["documents"][1:] = [summary, soft]
    folder = runs.write_run(tmp_path / "r", found, lines)
    write_report(folder, cases=1)
    text = "".join(data for _, data in Page((folder / "report.html").read_text(encoding="utf-8")).texts)
    assert "only the kept text is known" in text and "A summary." in text and "soft tokens 1 × 8" in text
    assert "1 of 10 questions are shown" in text


def test_the_report_is_the_same_again_and_leaves_nothing_else(reported, tmp_path, no_plots):
    names = sorted(path.name for path in reported.iterdir())
    kinds = ["config.yaml", "env.json", "leaderboard.md", "plots", "report.html", "results.json", "samples.jsonl"]
    assert names == kinds
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in (reported / "plots").iterdir())
    folder, texts = runs.write_run(tmp_path / "r"), []
    for _ in range(2):
        write_report(folder)
        texts.append([(folder / name).read_bytes() for name in ("leaderboard.md", "report.html")])
    assert texts[0] == texts[1]
    assert not (folder / "plots").exists() or not list((folder / "plots").iterdir())


def test_a_failed_report_keeps_the_old_one(tmp_path, monkeypatch, no_plots):
    folder = runs.write_run(tmp_path / "r")
    write_report(folder)
    before = (folder / "report.html").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ctxprune.eval.report.html._write", full)
    with pytest.raises(InputError, match=r"No space left.*free some space"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".report")]
    with pytest.raises(InputError, match="cases must be zero or more"):
        write_report(folder, cases=-1)


# plots


def test_a_curve_joins_the_settings_of_one_compressor():
    found = runs.results()["rows"] + [runs.row("towers", "provence", {"budget": 5}, 5, 40.0)]
    names = {curve.name: [row["tokens_after"] for row in curve.rows] for curve in run_plots.curves(found)}
    assert names == {"provence (threshold)": [4, 8], "provence (budget)": [5], "lead": [8], "rerank-truncate": [4, 8]}


def test_file_names_are_safe_and_distinct():
    assert run_plots.slugs(["a/b", "a b", "A-b", "../..", "日本"]) == [
        "a-b",
        "a-b-2",
        "A-b-2-2",
        "dataset",
        "dataset-2",
    ]


def test_only_what_was_measured_is_drawn(tmp_path):
    found = runs.results(generator=False)
    for row in found["rows"]:
        row["metrics"].pop("compress_seconds", None)
    assert [plot.file for plot in run_plots.draw(found, tmp_path)] == ["towers-tokens.png", "towers-kept.png"]
    found["rows"] = found["rows"][:3]
    assert run_plots.draw(found, tmp_path) == []


def test_without_matplotlib_the_extra_is_named_before_anything_is_written(tmp_path, monkeypatch):
    folder = runs.write_run(tmp_path / "r")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"ctxprune-rag\[bench\]"):
        write_report(folder)
    assert not (folder / "leaderboard.md").exists()


def test_a_sweep_is_drawn_for_the_set_that_was_varied(tmp_path):
    found = runs.results()
    base = found["rows"][0]["dataset"]
    mine = [row for row in found["rows"] if row["dataset"] == base]
    varied = [{**row, "dataset": f"{base} needle={place}"} for place in (0.5, 0) for row in mine]
    alone = [{**row, "dataset": f"{base} documents=5"} for row in mine]
    datasets = by_dataset({"rows": [*found["rows"], *varied, *alone]})
    (sweep,) = sweeps(datasets)
    assert (sweep.base, sweep.kind) == (base, "needle")
    assert "full" in sweep.lines and not {"none", "gold"} & sweep.lines.keys()
    assert not any("tokens_of" in arm for arm in sweep.lines)
    assert all([value for value, _ in line] == [0, 0.5] for line in sweep.lines.values())
    plots = run_plots.draw({**found, "rows": [*found["rows"], *varied]}, tmp_path)
    (drawn,) = [plot for plot in plots if plot.file.endswith("-needle.png")]
    assert drawn.dataset == base and (tmp_path / drawn.file).stat().st_size > 5_000
