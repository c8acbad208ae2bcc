"""Units and what they lean on in texts as users bring them: consoles, chats, mails, drawn tables, settings, markup."""

from __future__ import annotations

import pytest

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

END = "¶"  # stands where a unit ends; the text itself is the same without it


def units(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_sentences(text)]


def assert_split(marked: str) -> None:
    assert units(marked.replace(END, "")) == [part.strip() for part in marked.split(END) if part.strip()]


def leaning(text: str) -> dict[str, str | None]:
    """For each unit, what it leans on."""
    spans = split_sentences(text)
    return {
        text[span.start : span.end]: None if role.leans_on is None else text[slice(*_edges(spans[role.leans_on]))]
        for span, role in zip(spans, structure(text, spans), strict=True)
    }


def _edges(span) -> tuple[int, int]:
    return span.start, span.end


@pytest.mark.parametrize(
    "marked",
    [
        "lock.c:7:3: error: unknown type 'gate'\n    7 |   gate g;\n      |   ^~~~¶\n"
        "lock.c:9:1: note: did you mean 'grate'?¶",
        "src/lock.py:7: error: Incompatible types. Expected int¶\nsrc/sluice.py:12: error: Missing return¶",
        'TASK [open the lock] ****¶\nok: [north]¶\nfatal: [south]: UNREACHABLE! => {"msg": "no route. Try again"}¶',
        "0a1b2c3 Open the lock. Then close it¶\n4d5e6f7 Close the sluice¶",
    ],
)
def test_a_message_of_a_tool_is_a_unit(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "Kim, [30.11.2025 07:01]\nThe lock is shut. Wait for me¶\n\nLou Ray, [30.11.2025 07:05]\nHow long?¶",
        "[Yesterday 7:01 AM] Kim\nThe lock is shut. Wait for me¶\n\n[Yesterday 7:05 AM] Ray, Lou\nHow long?¶",
        "kim — Today at 7:01 AM\nThe lock is shut.\nwait for me\nplease¶\nlou — 11/30/2025 7:05 AM\nhow long?¶",
        "Kim Bell\n30/11/2025 07:01\nThe lock is shut. Wait for me¶\n\nLou Ray\n30/11/2025 07:05\nHow long?¶",
        "WEBVTT¶\n\nfirst words\n00:00:01.000 --> 00:00:02.000\nThe lock. It is shut¶\n\n"
        "00:03.000 --> 00:04.000\nHow long?¶",
    ],
)
def test_a_message_is_a_unit_however_it_is_dated(marked: str) -> None:
    assert_split(marked)


def test_prices_behind_names_are_no_times() -> None:
    assert_split("Toll | Price | Boats\n--- | --- | ---¶\nCanoe | 2.50 | 7¶\nBarge | 9.00 | 1¶")


@pytest.mark.parametrize(
    "marked",
    [
        "Tag;Schleuse;Hub¶\n01.03.2025;Nord;2,5¶\n02.03.2025;Süd;1,75¶\n03.03.2025;Nord;0,9¶",
        "Schleuse;Hub¶\nNord;2,5¶\nSüd;1,75¶\nOst;0,9¶\nWest;3,0¶",
        'ask,reply¶\n"Who opens the lock?","Kim does, on weekdays."¶\n"When?","From seven, as a rule."¶',
        "+------+--------+\n| Lock | Lift   |\n+======+========+¶\n"
        "| East | 2 m,   |\n|      | steep  |\n+------+--------+¶\n| West | 1 m    |\n+------+--------+¶",
        "====  ====\nLock  Lift\n====  ====¶\nEast  2 m¶\nWest  1 m\n====  ====¶",
        "+------+------+\n| lock | lift |\n+------+------+¶\n| East |    2 |¶\n| West |    1 |\n+------+------+¶",
        '{| class="plain"\n! Lock !! Lift\n|-¶\n| East || 2 m¶\n|-\n| West || 1 m\n|}¶',
        "Boat          Number      Toll\n¶Barge              1      9.00\n¶Canoe              4     10.00\n¶"
        "                 VAT 5%    0.95\n¶                    Sum   19.95¶\n",
        "Boat        Why shut            Do\n¶Barge       Too low, or the     Wait for\n"
        "            gate sticks         Kim\n¶Canoe       Nobody there        Ring\n"
        "¶Raft        Too wide            Go back¶\n",
        "|===\n|Lock |Lift¶\n\n|East\n|2 m¶\n\n|West\n|1 m\n|===¶",
        "\\begin{tabular}{lr}\n\\toprule\nLock & Lift \\\\\n\\midrule¶\nEast & 2 \\\\¶\nWest & 1 \\\\\n\\bottomrule\n"
        "\\end{tabular}¶",
    ],
)
def test_a_row_is_a_unit_and_leans_on_the_header(marked: str) -> None:
    marked = marked.replace("|-¶\n", "¶\n|-\n")  # a wiki's row mark stands before the row
    assert_split(marked)
    text = marked.replace(END, "")
    header, *rows = leaning(text)
    assert all(leaning(text)[row] == header for row in rows)


def test_prose_in_two_columns_has_no_header() -> None:
    text = (
        "The lock was built in a year and has      Boats wait here for an hour or so,\n"
        "never been repaired since it was new.     and longer when the river is high.\n"
        "It lifts boats by more than a metre.      The keeper sells tea to all of them.\n"
    )
    assert set(leaning(text).values()) == {None}


@pytest.mark.parametrize(
    "marked",
    [
        "Name:        north¶\nOpened At:   Mon, 3 Mar 2025¶\nKeeper:      Kim. Or Lou¶\n"
        "Gates:\n  upper:¶\n    Open Now:  no¶",
        "Log Name:    Locks¶\nKeeper Name: Kim¶\nLevel:       high¶\nReason:\nThe gate jammed. Twice.¶",
        'gate "north" {¶\n  lift = 2¶\n  keeper = "kim"\n}¶',
        'FROM lock:1¶\n# tools\nRUN fetch gate && \\\n    install gate¶\nCOPY . /srv¶\nCMD ["open"]¶',
        "<Lock north>¶\n  LiftHeight 2¶\n  KeeperName kim\n</Lock>¶",
        "LiftHeight 2¶\n# only them\nAllowBoats canoe barge¶\nCloseAfter 20m¶",
        "# when and what\n0 7 * * * /bin/open-lock¶\n*/5 * * * * /bin/look¶\n@reboot /bin/close-lock¶",
    ],
)
def test_a_setting_is_a_unit_with_or_without_a_sign_after_its_name(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "§ 4 Locks¶\n(1) Locks open at seven.¶ On Sundays they stay shut.¶\n"
        "(2) Free are:¶\n    (a) boats of the town (canoes too);¶\n    (b) rafts (of any kind);¶\n    (c) dogs.¶",
        "- the gate (see above) is shut;¶\n- the boat = ready to go;¶\n- nobody waits (we hope).¶",
    ],
)
def test_clauses_that_end_in_semicolons_are_no_code(marked: str) -> None:
    assert_split(marked)


def test_the_version_below_a_patch_is_no_part_of_its_hunk() -> None:
    assert_split("--- a/lock\n+++ b/lock¶\n@@ -1,2 +1,2 @@\n-shut\n+open\n gate¶\n-- \n2.40.1¶")


@pytest.mark.parametrize(
    ("head", "sender"),
    [
        ("From: Kim <kim@lock.example>\nTo: Lou\nSubject: The gate\n", "From: Kim <kim@lock.example>"),
        ("Von: Bell, Kim\nGesendet: Montag, 3. März 2025 07:01\nAn: Lou\nBetreff: Tor\n", "Von: Bell, Kim"),
        ("De : Kim\nEnvoyé : lundi 3 mars\nÀ : Lou\nObjet : Porte\n", "De : Kim"),
        ("Subject: The gate\nFrom: Kim\n", "From: Kim"),
    ],
)
def test_what_a_mail_says_leans_on_its_sender(head: str, sender: str) -> None:
    assert leaning(f"{head}\nThe gate is shut.\n")["The gate is shut."] == sender


def test_a_line_that_begins_with_from_is_no_sender_by_itself() -> None:
    assert set(leaning("From: the river.\nTwo boats came.\n\nThe gate is shut.").values()) == {None}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Q.   When did the lock open?", "A.   At seven."),
        ("Q: When did the lock open?", "A: At seven."),
        ("Question 3: When did the lock open?", "Answer 3: At seven."),
        ("Frage: Wann öffnete die Schleuse?", "Antwort: Um sieben."),
    ],
)
def test_an_answer_leans_on_its_question(question: str, answer: str) -> None:
    text = f"     {question}\n     {answer}\n     {question}\n     {answer}\n"
    spans = split_sentences(text)
    assert [text[span.start : span.end] for span in spans] == [question, answer] * 2
    assert [role.leans_on for role in structure(text, spans)] == [None, 0, None, 2]


def test_the_part_of_a_play_begins_with_who_speaks() -> None:
    assert_split("KIM. Is the lock shut?¶\nTHE KEEPER. It is.¶ Go home.¶\n\nKIM. Never!¶\n[Exit]¶")


def test_capitals_that_a_line_break_brings_to_the_front_are_no_part() -> None:
    text = (
        "THE LOCK IS PROVIDED AS IT IS AND ALL CLAIMS\nARE REFUSED. IN NO EVENT SHALL THE TOWN PAY FOR A\n"
        "BOAT. THE KEEPER MAY SHUT IT AT ANY TIME AND\nHOUR. NOBODY SHALL COMPLAIN."
    )
    assert "IN NO EVENT SHALL THE TOWN PAY FOR A\nBOAT." in units(text)


@pytest.mark.parametrize(
    "marked",
    [
        "The lock is of oak.3 It lifts boats.¶ Done.¶".replace("3 It", "3¶ It"),
        "Use version v1.2 It is new.¶",
        "3 Locks ........................ 41¶\n4 Gates . . . . . . . . . . . . 57¶",
        "Type cp gate . /srv and wait.¶ Then go.¶",
        "Usage: lock [GATE]... BOAT\n\n¶lock <gate>... [boat]\n\n¶lock *gates*... BOAT¶",
        "They waited...¶ And the NRA...¶ Then it opened...¶ Boats [two]!¶",
        "A boat ........ £2\n¶A barge ....... 4.50 €\n¶A raft ........ GBP 1,50¶\n",
        "\\author{M. Bell} keeps it.¶",
    ],
)
def test_where_a_full_stop_ends_a_sentence(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            "L\bLO\bOC\bCK\bK\n       lock - lift boats\n\nU\bUS\bSE\bE\n       lock _\bb_\bo_\ba_\bt\n",
            ["heading", "prose"] * 2,
        ),
        ("\x1b[1;31mERROR\x1b[0m gate jammed. Stop\n\x1b[32mINFO\x1b[0m gate free. Go\n", ["record"] * 2),
        ("\x1b]0;lock\x07$ lift\nThe boat rises.\n", ["prose"]),
    ],
)
def test_what_a_terminal_hides_is_not_read(raw: str, expected: list[str]) -> None:
    spans = split_sentences(raw)
    assert [role.kind for role in structure(raw, spans)] == expected


@pytest.mark.parametrize(
    ("text", "unit", "leans_on"),
    [
        ("<ul>\n  <li>Boats</li>\n  <li>Rafts</li>\n</ul><p>End.</p>", "<li>Rafts</li>\n</ul>", None),
        (
            "<ul><li>Boats<ul><li>canoes</li></ul></li></ul><p>End.</p>",
            "<ul><li>canoes</li></ul></li></ul>",
            "<ul><li>Boats",
        ),
        ("<dl>\n <dt>Lock</dt>\n <dd>A lift.</dd>\n <dt>Gate</dt>\n <dd>A door.</dd>\n</dl>", "<dt>Gate</dt>", None),
    ],
)
def test_items_of_html_nest_by_their_tags_and_not_by_their_columns(text: str, unit: str, leans_on: str | None) -> None:
    assert leaning(text)[unit] == leans_on


@pytest.mark.parametrize(
    "marked",
    [
        '<?xml version="1.0"?>¶\n<locks>¶\n  <lock>\n    <name>East</name>\n    <note>Old. Steep.</note>\n  </lock>¶\n'
        "  <lock><name>West</name><lift>1</lift></lock>¶\n</locks>¶",
        "<feed><entry><title>Shut</title><text>The gate jammed. Wait.</text></entry>"
        "<entry><title>Free</title><text>It opens.</text></entry></feed>".replace("<entry>", "¶<entry>").replace(
            "</feed>", "¶</feed>"
        ),
    ],
)
def test_an_element_of_xml_that_comes_again_is_a_unit(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "\\section{Locks}¶\nA lock lifts boats.¶ It has gates.¶\n"
        "\\begin{itemize}¶\n  \\item One is old.¶\n  \\item One is new.¶\n"
        "\\end{itemize}¶\n\\begin{align}\n  h &= 2 \\\\\n  t &= 7\n\\end{align}¶\nwhere $h$ is the lift.¶",
        "= Locks¶\n\nA lock lifts boats.¶\n\n[source,sh]\n----\nlock --open\n----¶\n\n== Gates¶\nThey are of oak.¶",
        ".. warning::¶\n\n   The gate is heavy.¶ Stand back.¶",
        "Lock\n  A lift for boats.¶ It has gates.¶\n\nGate\n  A door in the water.¶".replace(
            "Lock\n", "Lock¶\n"
        ).replace("Gate\n", "Gate¶\n"),
    ],
)
def test_units_of_latex_asciidoc_and_restructuredtext(marked: str) -> None:
    assert_split(marked)


def test_the_running_title_of_the_first_page_tells_that_of_the_second() -> None:
    title = "Locks of the river" + " " * 50 + "Report 7"
    text = (
        f"{title}\n\nThe lock was built by the town and by many private owners of boats\n\n1\n\f{title}\n\nwho wait.\n"
    )
    assert units(text)[-1].endswith("who wait.")


def test_code_inside_a_step_leans_on_the_step() -> None:
    text = "Open it:\n\n1. Turn the key.\n\n   ```sh\n   lock --open\n   ```\n2. Wait.\n"
    assert leaning(text)["```sh\n   lock --open\n   ```"] == "1. Turn the key."


@pytest.mark.parametrize(
    "marked",
    [
        "(2) Boats wait here.¶ On Mondays they do not.¶",
        "It lifts approx. 9 boats.¶ They left at 7 a.m. Monday.¶",
        "수문은 2025. 3. 1. 에 열렸다.¶ 배가 왔다.¶",
        "Śluza stoi przy pow. 38 i ma 3 m.¶ Otwarto ją 2 wrz. 1901 r. i tyle.¶ Łódź płaci 2 zł.¶ Potem płynie.¶",
        "Con thuyền cao lắm.¶ TS. Minh đến TP. Huế bằng thuyền.¶",
        "A eclusa mede aprox. 9 metros.¶ Os barcos esperam aqui.¶",
    ],
)
def test_abbreviations_and_numbers_that_end_no_sentence(marked: str) -> None:
    assert_split(marked)


RECORD_OF_COURT = """\
17        Q.  You were the night porter of the Hotel Aurora?
18        A.  Yes. I had been there for
19    eleven years.
20        Q.  Who took the parcel from the desk?
21        A.  A woman in a green coat, about forty, who said that
22    she was expected by Mr. Lund.
23             THE COURT:  Did she give a name?
24             THE WITNESS:  No, Your Honor. She only
25    showed me the key of room 12.

1         Q.  What did you do then?
"""


def test_a_turn_goes_on_over_the_numbered_lines_of_a_court_record():
    units = [RECORD_OF_COURT[span.start : span.end] for span in split_sentences(RECORD_OF_COURT)]
    assert "17        Q.  You were the night porter of the Hotel Aurora?" in units
    assert "I had been there for\n19    eleven years." in units
    assert any("A woman in a green coat" in unit and "expected by Mr. Lund." in unit for unit in units)
    assert not any("Hotel Aurora" in unit and "eleven years" in unit for unit in units)
    assert units[-1] == "1         Q.  What did you do then?"


def test_numbered_rows_without_speakers_stay_rows():
    text = "1  Meyer  Bonn\n2  Lee  Ulm\n3  Roth  Kiel\n4  Ahn  Wien\n5  Sun  Trier\n6  Ny  Graz\n"
    assert [text[span.start : span.end] for span in split_sentences(text)] == text.splitlines()


def test_a_script_is_code_and_its_comments_are_text() -> None:
    assert_split(
        "#!/bin/sh\n# Opens the lock. Needs a key.\nset -eu¶\n\n# Opens the gate.¶ Waits a while,\n# and shuts it.¶\n\n"
        'if [ -z "$1" ]; then\n    exit 2\nfi¶\n\nfetch gate | open > log\nsleep 9¶'
    )


@pytest.mark.parametrize(
    "marked",
    [
        "server harbour {\n    depth 4;\n}¶\nserver lock {\n    depth 2;\n    gate {\n        oak;\n    }\n}¶",
        "int ebb(int tide)\n{\n    if (tide)\n    {\n        return 1;\n    }\n    return 0;\n}¶\n"
        "// Comes twice a day.\nint flood(void)\n{\n    return 2;\n}¶",
        "if (shut) {\n    wait();\n}\nelse {\n    pass(2);\n}¶\nring();¶",
        "export default {\n    boats: 3,\n};¶\nconst keeper = find(2);¶",
    ],
    ids=["settings", "braces on lines of their own", "what goes on with it", "a statement"],
)
def test_a_block_of_code_that_ends_at_the_margin_ends_a_unit(marked: str) -> None:
    assert_split(marked)


def test_banners_of_a_test_run_head_what_is_below() -> None:
    text = (
        "====== FAILURES ======\n______ test_lock ______\n\n    def test_lock():\n>       assert shut() == 1\n\n"
        "lock.py:7: AssertionError\n====== summary ======\nFAILED lock.py::test_lock - assert 0 == 1\n"
    )
    found = leaning(text)
    assert found["lock.py:7: AssertionError"] == "______ test_lock ______"
    assert found["FAILED lock.py::test_lock - assert 0 == 1"] == "====== summary ======"


def test_notes_and_nested_items_of_a_wiki() -> None:
    marked = (
        "The lock is old.<ref name=a>Bell, K. (2019). ''Locks''. p. 4.</ref>¶ It lifts {{cvt|2.1|m. or so|x}} up.¶\n\n"
        "* Built of oak¶\n** Tarred¶\n* Mended¶"
    )
    assert_split(marked)
    assert leaning(marked.replace(END, ""))["** Tarred"] == "* Built of oak"


def test_what_is_quoted_leans_on_the_line_that_says_who_wrote_it() -> None:
    text = (
        "From: Kim\nTo: Lou\n\nThe lock is shut.\n\nOn Monday Lou Ray wrote:\n> Is it open?\n> Ann said:\n> > It is.\n"
        "> I doubt it.\n\nSo do I.\n"
    )
    found = leaning(text)
    assert found["> Is it open?"] == found["> I doubt it."] == "On Monday Lou Ray wrote:"
    assert found["> > It is."] == "> Ann said:"
    assert found["So do I."] == "From: Kim"
