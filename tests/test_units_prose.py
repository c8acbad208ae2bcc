"""Prose that no line end, page break or tag may cut, and speech that is cut without marks."""

from __future__ import annotations

import re
import textwrap
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from test_units import assert_split, units

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

PROSE = (
    "The mill was built in 1701, when the river still ran to the south of the town, and it has been turning ever since "
    "without more than a day of rest. In 1744 a second mill followed, lower down; its wheel is smaller, but it has "
    "three stones. Kim Park, who keeps both of them, says that the upper one is the better mill: it needs less water. "
    "You may visit it on any day except Sunday (the bus stops at the weir), and there is no charge. "
    "Children must not go near the wheel. The stones are dressed in the morning and turn again at noon."
)


@settings(deadline=None, max_examples=120)
@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=14),
    st.integers(48, 100),
    st.sampled_from(["", "    ", "> ", "# ", "       "]),
    st.sampled_from(["", "  "]),
    st.booleans(),
)
@example([1, 4, 0, 0, 0, 4, 0, 0, 1, 2, 0], 51, "", "", False)  # a year on every second line
def test_no_line_end_of_wrapped_prose_ends_a_unit(
    order: list[int], width: int, prefix: str, hanging: str, page_break: bool
) -> None:
    sentences = units(PROSE)
    text = " ".join(sentences[place] for place in order)
    wrapped = textwrap.fill(
        text,
        width,
        initial_indent=prefix,
        subsequent_indent=prefix + (hanging if prefix.isspace() else ""),
        break_long_words=False,
        break_on_hyphens=False,
    )
    # a line that ends with a colon, the next one further in, leads in a list or code
    assume(not hanging or not any(line.endswith(":") for line in wrapped.split("\n")))
    # one word with a colon at the beginning of several lines is the name of a field
    assume(sum(line.lstrip(" >#").startswith("mill:") for line in wrapped.split("\n")) < 2)
    if page_break and wrapped.count("\n") > 2:
        lines = wrapped.split("\n")
        wrapped = "\n".join([*lines[:2], "\f" + lines[2], *lines[3:]])
    found = [re.sub(r"[\s>#]+", " ", each).strip() for each in units(wrapped)]
    assert found == [sentences[place] for place in order]


@pytest.mark.parametrize(
    "gap",
    [
        "\n\f",
        "\f",
        "\n\n\f",
        "\n\n17\n\n",
        "\n\n- 17 -\n\f",
        "\n\n17\n\fThe Valley Post\n\n",
        "\n\nKim [Page 3]\n\fMills  1701\n\n",
    ],
)
def test_a_page_break_inside_a_sentence_ends_no_unit(gap: str) -> None:
    first = "The upper mill was built for the monks of the valley at a time when the river ran"
    assert units(f"Mills turn. {first}{gap}south of the town. It still turns.") == [
        "Mills turn.",
        f"{first}{gap}south of the town.",
        "It still turns.",
    ]


def test_a_page_break_after_a_sentence_joins_nothing() -> None:
    assert units("The mill turns.\n\n3\n\n\fLower Mill\n\nIt has three stones.") == [
        "The mill turns.",
        "3",
        "Lower Mill",
        "It has three stones.",
    ]


@pytest.mark.parametrize(
    "marked",
    [
        "<p>The mill turns.</p>¶<p>It was built in 1701</p>¶<p>Kim keeps it</p>",
        "<h1>Mills</h1>¶<ul><li>Upper¶<li>Lower</ul>¶<p>End",
        "<div><b>Upper</b> mill</div>¶<div>Lower mill<br>¶with a wheel</div>",
        "<p>Run:</p>¶<pre>mill --grind\nmill --rest. Now\n\nOnce. More</pre>¶<p>It is <b>incl. VAT</b> two pounds.</p>",
        "<dl><dt>Upper</dt>¶<dd>Built in 1701</dd>¶<dt>Lower</dt>¶<dd>Built in 1744</dd></dl>",
        "<table><tr><th>Mill</th><th>Built</th></tr>¶<tr><td>Upper</td><td>1701</td></tr>¶"
        "<tr><td>Lower</td><td>1744</td></tr></table>",
        "<body><p>Bread &amp; flour. </p>¶<p>So it is</p>¶<style>p{color:red}</style>¶"
        "<script>if(a<b){c()}</script>¶<p>End</p></body>",
    ],
)
def test_block_tags_end_a_unit_without_a_line_break(marked: str) -> None:
    assert_split(marked)


def test_a_tag_that_prose_speaks_of_divides_nothing() -> None:
    text = "Put the text between <p> and </p> tags to make a paragraph of it"
    assert units(text) == [text]


def test_speech_without_marks_is_cut_at_clauses_of_a_sensible_size() -> None:
    talk = " ".join(
        ["so the wheel turns and the water runs below the stones and you can hear it when you stand here"] * 30
    )
    found = units(talk)
    assert all(60 <= len(each) <= 240 for each in found[:-1])
    assert all(each.split()[0] in ("so", "and", "when") for each in found)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        (
            "สะพานไม้ข้ามคลองสายเก่าของหมู่บ้านได้รับการออกแบบและสร้างโดยช่างไม้ชื่อ สมชาย ใจดี ผู้ซึ่งเคยทำงานอยู่ที่อู่ต่อเรือ"
            "ในเมืองหลวงมานานกว่ายี่สิบปีก่อนจะย้ายมาอยู่ที่นี่",
            "ช่างไม้ชื่อ สมชาย ใจดี",
        ),
        (
            "คณะกรรมการหมู่บ้านตกลงว่าจะซ่อมหลังคาของศาลาริมน้ำให้เสร็จเรียบร้อยภายใน เดือนเมษายน ปีหน้า เพราะฝนจะเริ่มตกหนัก"
            "ในเดือนพฤษภาคมและน้ำในคลองจะสูงขึ้นทุกวัน",
            "ภายใน เดือนเมษายน ปีหน้า",
        ),
        (
            "ຂົວໄມ້ຂ້າມຄອງເກົ່າຂອງບ້ານໄດ້ຮັບການອອກແບບ ແລະ ກໍ່ສ້າງໂດຍຊ່າງໄມ້ທີ່ມີຊື່ວ່າ ສົມໄຊ ແກ້ວມະນີ ຜູ້ທີ່ເຄີຍເຮັດວຽກຢູ່ອູ່ຕໍ່ເຮືອ"
            "ໃນນະຄອນຫຼວງເປັນເວລາຫຼາຍກວ່າຊາວປີກ່ອນຈະຍ້າຍມາຢູ່ທີ່ນີ້",
            "ຊື່ວ່າ ສົມໄຊ ແກ້ວມະນີ",
        ),
    ],
    ids=["a name", "a date", "a name in Lao"],
)
def test_blanks_within_names_and_dates_end_nothing_where_sentences_end_with_a_blank(text, whole):
    assert sum(whole in unit for unit in units(text)) == 1


def test_a_clause_that_opens_with_a_conjunction_begins_a_unit_where_sentences_end_with_a_blank():
    first = "คณะกรรมการหมู่บ้านตกลงว่าจะซ่อมหลังคาของศาลาริมน้ำให้เสร็จเรียบร้อยภายใน เดือนเมษายน ปีหน้า"
    second = "เพราะฝนจะเริ่มตกหนักในเดือนพฤษภาคมและน้ำในคลองจะสูงขึ้นทุกวันจนถึงหลังคา"
    assert units(f"{first} {second}") == [first, second]


@pytest.mark.parametrize(
    "marked",
    [
        "โรงสีเก่าริมแม่น้ำเปิดให้เข้าชมทุกวันยกเว้นวันจันทร์ ตั้งแต่เวลา 9 โมงเช้าถึง 4 โมงเย็น¶"
        " ผู้เข้าชมต้องซื้อบัตรที่ประตูทางทิศเหนือ ราคาใบละ 40 บาทสำหรับผู้ใหญ่¶"
        " เด็กที่มีอายุต่ำกว่าเจ็ดปีไม่ต้องเสียค่าเข้าชมแต่ต้องมีผู้ปกครองมาด้วยเสมอ",
        "ໂຮງສີເກົ່າແຄມແມ່ນ້ຳເປີດໃຫ້ເຂົ້າຊົມທຸກມື້ຍົກເວັ້ນວັນຈັນ ຕັ້ງແຕ່ 9 ໂມງເຊົ້າ¶ ຜູ້ເຂົ້າຊົມຕ້ອງຊື້ປີ້ຢູ່ປະຕູທາງທິດເໜືອຊຶ່ງຢູ່ໃກ້ກັບຂົວໄມ້ ລາຄາໃບລະ 40 ກີບ",
        "กังหันหมุนทั้งวัน น้ำไหลแรง เสียงดัง",
    ],
)
def test_thai_and_lao_are_cut_at_blanks_between_letters(marked: str) -> None:
    assert_split(marked)


def test_thai_without_full_stops_is_cut_at_blanks() -> None:
    found = units("กังหันน้ำหมุนตลอดทั้งวัน " * 60)
    assert all(len(each) <= 240 for each in found)


def test_a_long_sentence_with_its_marks_stays_whole() -> None:
    sentence = "The mill, which " + ", and which ".join(["was built by the monks of the valley"] * 20) + ", turns."
    assert units(sentence) == [sentence]


def test_marks_that_begin_a_line_end_no_sentence() -> None:
    text = ".. _upper:\n.. _lower:\n\n.. mills turn\n\nSee upper."
    assert units(text) == [".. _upper:\n.. _lower:", ".. mills turn", "See upper."]


def test_sentences_of_long_texts_take_no_longer_than_those_of_short_ones() -> None:
    """Sixteen times the text may take 28 times as long, in one of several tries."""

    def seconds(times: int) -> float:
        text = "\n\n".join([PROSE] * times)
        started = time.process_time()
        units(text)
        return time.process_time() - started

    assert any(seconds(3200) <= 28 * seconds(200) for _ in range(4))


STRETCHED = """\
DESCRIPTION
\tThe mill is an old one that has been turning since the flood and stands
\ton the bank of the Wend (see the map).  The  upper  wheel  needs   less
\t(a half\tperhaps\tor one\tof ten) of the water than the lower, as Kim
\tsays, and turns by night.
"""


def test_a_line_that_tabs_stretch_to_the_margin_is_no_row() -> None:
    first, second = STRETCHED.index("The mill"), STRETCHED.index("The  upper")
    assert units(STRETCHED)[1:] == [STRETCHED[first:second].rstrip(), STRETCHED[second:].rstrip()]


def test_a_row_whose_cells_tabs_part_stays_one_beside_prose() -> None:
    row = "Upper mill\tKim\tmended\tbelow the weir"
    text = f"The mills of the lower valley were counted once a year.\n{row}\n\nNobody came."
    assert row in units(text)


def test_prose_with_one_line_beyond_the_margin_is_no_table() -> None:
    lines = [
        "The  wheel is old and turns",
        "by  night, as the miller is",
        "said  to like it, and keeps",
        "an  eye on the gate that is there     for  it",
    ]
    assert len(units("\n".join(lines) + ".")) == 1


def test_a_remark_in_code_that_is_set_in_is_no_heading() -> None:
    text = "MILLING\n    Grind twice, like this:\n\n\t# wait for the water\n\t$ grind --fine\n\n    Then rest.\n"
    spans = split_sentences(text)
    kinds = {text[span.start : span.end]: role.kind for span, role in zip(spans, structure(text, spans), strict=True)}
    assert [unit for unit, kind in kinds.items() if kind == "heading"] == ["MILLING"]


def test_commands_that_a_pipe_joins_are_one_unit() -> None:
    command = "grep flour |\n  sort -u |\n  head -3"
    assert units(f"Count the sacks so:\n\n  {command}\n\nThen rest.") == ["Count the sacks so:", command, "Then rest."]


@pytest.mark.parametrize(
    "marked",
    [
        "The weir leaks.😀 ¶The miller knows!🎉🎉 ¶Nobody mends it?👍🏽 ¶It is late.",
        "The weir leaks.† ¶The miller knows.‡ ¶It is late.",
        "1\ufe0f\u20e3 Boats must be kept on a rope\n¶2\ufe0f\u20e3 The weir was mended by the miller\n"
        "¶3\ufe0f\u20e3 The ferry runs",
    ],
)
def test_signs_behind_a_sentence_belong_to_it(marked: str) -> None:
    assert_split(marked)


def test_a_blank_that_somebody_left_out() -> None:
    assert_split("The miller came home.¶He had seen the weir and the gate!¶It is late.")


@pytest.mark.parametrize(
    "text",
    [
        "The option is set in gates.toml and read by weir.Open when the program begins, and user.Name is shown below.",
        "We wrote the site in the Next.js framework and the rest in ASP.NET, of which the old program was made.",
        "It says e.g.The Gate or similar on the board that stands by the river, and nobody has read it for years.",
    ],
)
def test_names_with_a_full_stop_in_them_stay_whole(text: str) -> None:
    assert units(text) == [text]
