"""Units by the shape of the text: records, rows, settings, verse, HTML; and units of a kind that is named."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from fixtures_growth import assert_work_grows_with_length
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.text import split_sentences

SEPARATOR = "¦"
END = "¶"  # stands where a unit ends; the text itself is the same without it


def units(text: str, **options: object) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_sentences(text, **options)]  # type: ignore[arg-type]


def assert_split(marked: str, **options: object) -> None:
    assert units(marked.replace(END, ""), **options) == [part.strip() for part in marked.split(END) if part.strip()]


@pytest.mark.parametrize(
    "marked",
    [
        pytest.param(
            """\
Mar  3 04:05:06 mill7 gated[88]: opened lane 2¶
Mar  3 04:05:07 mill7 gated[88]: lane 2 jammed. Retrying¶
Mar  3 04:05:09 mill7 gated[88]: lane 2 closed¶""",
            id="syslog",
        ),
        pytest.param(
            """\
2023-11-30T08:00:00.120Z WARN  pump: pressure low¶
2023-11-30T08:00:02.007Z ERROR pump: valve stuck
    valve=7
    pressure=0.2
second line of the message¶
2023-11-30T08:00:03.000Z INFO  pump: idle¶""",
            id="iso stamps with continuation lines",
        ),
        pytest.param(
            """\
[Thu Nov 30 08:00:00.1 2023] [core:notice] [pid 9] resumed¶
[Thu Nov 30 08:00:04.2 2023] [php:error] [pid 9] no such mill¶""",
            id="bracketed",
        ),
        pytest.param(
            """\
198.51.100.7 - - [30/Nov/2023:08:00:00 +0000] "GET /mill HTTP/2.0" 200 512 "-" "Lynx/2.9 (like Gecko)"¶
2001:db8::7 - kim [30/Nov/2023:08:00:01 +0000] "PUT /mill HTTP/2.0" 409 0 "-" "curl/8"¶""",
            id="access log",
        ),
        pytest.param(
            """\
ts=1701331200 level=warn msg="pressure low. Check" pump=3¶
ts=1701331204 level=info msg="pressure fine" pump=3¶""",
            id="key=value",
        ),
        pytest.param(
            '{"level":"warn","msg":"Low. Check it."}¶\n{"level":"info","msg":"Fine."}¶\n{"level":"info"}¶',
            id="JSON lines",
        ),
        pytest.param(
            '{¶\n  "line": "T2",¶\n  "halts": [¶\n    {"at": "Quay", "min": 3},¶\n    {"at": "Fort", "min": 9}\n  ],¶\n'
            '  "driver": {¶\n    "name": "Ida",¶\n    "since": 2019\n  }\n}¶',
            id="JSON with objects of a line each",
        ),
        pytest.param("WARN  pressure is low¶\nERROR valve stuck: no power¶\nINFO  idle¶", id="level first"),
        pytest.param("[    0.000000] Linux version 6¶\n[    1.204113] mill: probe of 0 failed¶", id="kernel ring"),
        pytest.param(
            """\
I1130 08:00:00.000001       1 main.go:7] start¶
E1130 08:00:00.100001       1 main.go:9] no mill¶""",
            id="klog",
        ),
    ],
)
def test_a_line_of_a_log_is_a_unit_with_the_lines_that_continue_it(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    "trace",
    [
        """\
Traceback (most recent call last):
  File "/opt/mill/run.py", line 40, in grind
    wheel.turn()
mill.errors.JamError: stone in the wheel

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/mill/run.py", line 44, in <module>
    grind()
SystemExit: 3""",
        """\
org.mill.JamException: stone in the wheel
\tat org.mill.Wheel.turn(Wheel.java:40)
\tat org.mill.Main.main(Main.java:9)
Caused by: java.io.IOException: sensor offline
\tat org.mill.Sensor.read(Sensor.java:12)
\t... 1 more""",
        """\
RangeError: stone 7 is too large
    at turn (/opt/mill/wheel.js:40:11)
    at async /opt/mill/main.js:9:3""",
        """\
panic: stone in the wheel

goroutine 1 [running]:
main.(*Wheel).turn(0xc000012345)
\t/opt/mill/wheel.go:40 +0x1c
main.main()
\t/opt/mill/main.go:9 +0x25
exit status 2""",
    ],
    ids=["Python", "Java", "JavaScript", "Go"],
)
def test_a_stack_trace_belongs_to_its_record_and_is_one_unit_without(trace: str) -> None:
    before, after = "2023-11-30 08:00:00 ERROR grinding failed", "2023-11-30 08:00:01 INFO stopped"
    assert units(f"{before}\n{trace}\n{after}\n") == [f"{before}\n{trace}", after]
    assert units(f"The mill stopped.\n\n{trace}\n\nWe looked. It was a stone.") == [
        "The mill stopped.",
        trace,
        "We looked.",
        "It was a stone.",
    ]


@pytest.mark.parametrize(
    "marked",
    [
        "30/11/2023, 08:00 - Kim: Is the mill open?¶\n30/11/2023, 08:02 - Lou: No. Come at ten\nor later¶\n"
        "30/11/2023, 08:03 - Kim: Fine¶",
        "[30.11.23, 08:00:12] Kim: Is the mill open?¶\n[30.11.23, 08:02:40] Lou: No. Come at ten¶",
        "[08:00] <kim> is the mill open?¶\n[08:02] <lou> no. At ten¶\n[08:03] * kim sighs¶",
        "<kim> is the mill open?¶\n<lou> no. At ten¶",
        "Kim Park  8:00 AM\nIs the mill open? I am near.¶\n\nLou Berg  8:02 AM\nNo. Come at ten.¶",
        "[00:00:02] Good morning from the mill¶\n[00:00:05] the wheel turns again¶\n[00:00:09] and we are glad¶",
        "7\n00:00:02,000 --> 00:00:04,000\nGood day\nfrom the mill.¶\n\n8\n00:00:05,000 --> 00:00:06,500\nIt is.¶",
        "WEBVTT¶\n\n00:02.000 --> 00:04.000\n- Good morning. It turns.¶\n\n00:05.000 --> 00:06.000\n- At last.¶",
        "Kim: Is the mill open?¶ I am near.¶\nLou: No.¶ Come at ten.¶",
    ],
)
def test_a_message_is_a_unit(marked: str) -> None:
    assert_split(marked)


def test_a_mail_is_split_by_header_line_sentence_and_depth_of_quotation() -> None:
    assert_split(
        """\
From: Kim <kim@mill.example>¶
Subject: The wheel¶

Dear Lou,¶

the wheel has been turning since this morning, and we should talk about the
stone that was found in it.¶ Are you free?¶

On Thu, Nov 30, 2023 at 7:00 AM Lou wrote:¶
> I cannot come before ten, because the road is closed and the bus takes
> more than an hour.¶ Sorry.¶
>> Will you come?¶
> No.¶
"""
    )


@pytest.mark.parametrize(
    "marked",
    [
        "mill,built,stones¶\nUpper,1701,2¶\nLower,1744,3¶",
        'mill,note¶\n"Upper","built in 1701,\nburnt in 1802. Rebuilt"¶\n"Lower","short, dry"¶\n"Old","gone"¶',
        "Mill; Built; Stones¶\nUpper; 1701; 2¶\nLower; 1744; 3¶\nOld; 1650; 1¶",
        "mill\tbuilt¶\nUpper\t1701¶\nLower\t1744¶",
        "mill|built|stones¶\nUpper|1701|2¶\nLower|1744|3¶",
        "The mills of the valley¶\nmill,built,stones¶\nUpper,1701,2¶\nLower,1744,3¶",
        "NAME      READY   STATUS    AGE¶\nupper-0   1/1     Running   3d¶\nlower-1   0/1     Error     2h¶",
        "Filesystem    Size  Used Avail Use% Mounted on¶\n/dev/vda1      40G   22G   18G  55% /¶\n"
        "tmpfs         2.0G     0  2.0G   0% /run¶",
        "total 12¶\n-rw-r--r-- 1 kim kim  210 Nov 30 08:00 mill.txt¶\ndrwxr-xr-x 2 kim kim 4096 Nov 30 08:00 stones¶",
        " id | mill  \n----+-------¶\n  1 | Upper¶\n  2 | Lower¶\n(2 rows)¶",
        "+----+-------+\n| id | mill  |\n+----+-------+¶\n|  1 | Upper |¶\n|  2 | Lower |\n+----+-------+¶",
        "upper_1  | starting. Wait¶\nlower_1  | ready¶\nupper_1  | ready¶",
    ],
)
def test_a_row_is_a_unit(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "; the upper mill\n[upper]¶\nbuilt = 1701¶\nstones = 2¶\n\n[lower]¶\n# not in use\nbuilt = 1744¶",
        "mill.upper.built=1701¶\nmill.upper.stones=2¶\nmill.lower.built=1744¶",
        "export MILL_PORT=80¶\nMILL_NAME='Upper. Mill'¶\nDEBUG=0¶",
        "mills:\n  valley:¶\n    - name: upper\n      built: 1701¶\n    - name: lower\n      built: 1744¶\nopen: true¶",
        "note: |\n  The mill. It\n  turns.¶\nbuilt: 1701¶\nstones: 2¶",
        '{\n  "mill": {¶\n    "built": 1701,¶\n    "stones": 2\n  }\n}¶',
    ],
)
def test_a_setting_is_a_unit_with_its_comment_and_the_keys_that_lead_to_it(marked: str) -> None:
    assert_split(marked)


def test_a_diff_is_split_by_file_and_hunk() -> None:
    assert_split(
        """\
diff --git a/mill.py b/mill.py
index 11..22 100644
--- a/mill.py
+++ b/mill.py¶
@@ -1,3 +1,3 @@
 def stones():
-    return 2. Old
+    return 3

 x = 1¶
@@ -9,2 +9,1 @@ def built():
-    gone()
     return 1701¶
"""
    )


def test_a_long_hunk_is_split_by_its_changes() -> None:
    change = "-    wheel.turn(stones=2, speed=10, direction='left')\n+    wheel.turn(stones=3)\n     wheel.wait(10)\n"
    found = units("--- a/mill.py\n+++ b/mill.py\n@@ -1,60 +1,60 @@\n" + change * 20)
    assert found[0] == "--- a/mill.py\n+++ b/mill.py"
    assert len(found) > 2 and all(len(each) < 1000 for each in found)
    assert all(each.startswith("-") for each in found[2:])


def test_code_outside_of_fences_is_split_between_paragraphs() -> None:
    assert_split(
        """\
import mill¶

class Upper:
    built = 1701¶

    def turn(self, stones):
        # Stones are heavy. Take care.
        if stones > 2:
            return "slow. Very slow"
        return "fast"¶

wheel = Upper()
print(wheel.turn(3))¶
"""
    )


@pytest.mark.parametrize(
    "marked",
    [
        "The wheel goes round¶\nBelow the hill¶\nIt makes no sound¶\nThe night is still¶\n\n"
        "The wheel goes round¶\nAs ever will¶",
        "mill¶\nwater wheel¶\ngrinding stones¶\nflour dust¶",
        "The Upper Mill¶\nBelow the Weir¶\nMilltown¶",
    ],
)
def test_lines_of_verse_lists_and_captions_are_units(marked: str) -> None:
    assert_split(marked)


MANUAL = """\
GRIND(1)                     Mill Manual                     GRIND(1)

NAME
       grind - turn the stones of a mill

DESCRIPTION
       The  program  turns the stones until there is nothing left between
       them, which may take a while.  It says what  it  does  when  asked
       with -v.

OPTIONS
       -s, --stones=NUMBER
              How many stones turn.  The default  is  all  of  them,  and
              more than there are is an error.

       -v     Say what is done.

FILES
   Settings
       Read from the home directory at the start.
"""


def test_a_manual_page_is_split_by_heading_term_and_sentence() -> None:
    found = [re.sub(r"\s+", " ", each) for each in units(MANUAL)]
    assert found == [
        "GRIND(1) Mill Manual GRIND(1)",
        "NAME",
        "grind - turn the stones of a mill",
        "DESCRIPTION",
        "The program turns the stones until there is nothing left between them, which may take a while.",
        "It says what it does when asked with -v.",
        "OPTIONS",
        "-s, --stones=NUMBER",
        "How many stones turn.",
        "The default is all of them, and more than there are is an error.",
        "-v Say what is done.",
        "FILES",
        "Settings",
        "Read from the home directory at the start.",
    ]


SAMPLE = "# Mill\n\nIt turns. It\nis old.\n\n  - upper\n    mill\n"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("auto", ["# Mill", "It turns.", "It\nis old.", "- upper\n    mill"]),
        ("sentences", ["# Mill", "It turns.", "It\nis old.", "- upper\n    mill"]),
        ("lines", ["# Mill", "It turns. It", "is old.", "- upper", "mill"]),
        ("records", ["# Mill", "It turns. It", "is old.", "- upper\n    mill"]),
        ("paragraphs", ["# Mill", "It turns. It\nis old.", "- upper\n    mill"]),
    ],
)
def test_the_kind_of_units_can_be_forced(kind: str, expected: list[str]) -> None:
    assert units(SAMPLE, units=kind) == expected


def test_sentences_takes_a_log_for_running_text() -> None:
    log = "2023-11-30 08:00:00 INFO one\n2023-11-30 08:00:01 INFO two"
    assert len(units(log)) == 2
    assert units(log, units="sentences") == [log]


def test_an_unknown_kind_of_units_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match="units must be one of auto, sentences, lines, records, paragraphs, got 'rows'"
    ):
        split_sentences("text", units="rows")  # type: ignore[arg-type]


LINES = (
    "2023-11-30 08:00:00 INFO x¦08:00 <kim> hi¦key: value¦a,b,c¦a\tb¦| a | b |¦|---|---|¦  deeper¦¦[section]¦# note"
    "¦Traceback (most recent call last):¦    at x (y:1)¦\fpage¦12¦-x, --long¦@@ -1 +1 @@¦-gone¦+new¦<p>A</p><p>B</p>"
    '¦<script>x¦</script>¦def f(x):¦}¦1¦00:01 --> 00:02¦He. She¦```¦> quoted¦"¦A line of prose that goes on and on'
)
BLOB = "data:image/png;base64," + "iVBORw0KGgo4" * 30


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from([*LINES.split(SEPARATOR), BLOB]), max_size=14).map("\n".join),
    st.sampled_from(["auto", "sentences", "lines", "records", "paragraphs"]),
)
def test_units_cover_any_mixture_of_lines(text: str, kind: str) -> None:
    spans = split_sentences(text, units=kind)  # type: ignore[arg-type]
    assert all(left.end <= right.start for left, right in pairwise(spans))
    assert all(text[span.start : span.end] == text[span.start : span.end].strip() != "" for span in spans)
    assert sum(len("".join(text[span.start : span.end].split())) for span in spans) == len("".join(text.split()))


@pytest.mark.parametrize(
    "piece",
    '\n¦ ¦(¦<p>¦<¦\fa\n¦12\n¦a,b\n¦a: b\n¦a   b\n¦x = (;\n¦-x\n¦"¦@@ -1 +1 @@\n¦# a\n¦Error¦at x(¦A1b2C3d4¦data:a;b,'
    "¦commit ¦00:01 --> 2\n¦<!--¦<script>¦|¦\t¦> "
    "¦{|\n|-\n¦|===\n|a\n¦+--+--+\n¦=== ===\n¦a & b \\\\\n¦\\\\ a&¦\\begin{align}\n¦[a]\n----\n¦Q: a\n¦KIM. c\n"
    "¦From: x\nTo: y\n¦<a><b>¦\x1b[¦a\b¦....¦a:  b\n¦a  b".split(SEPARATOR),
)
def test_work_grows_with_the_length_of_odd_texts(piece: str) -> None:
    assert_work_grows_with_length(split_sentences, piece)
