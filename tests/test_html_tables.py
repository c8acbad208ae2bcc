"""Tables of HTML: rows stay whole with what is nested in them, and lean on the header of their own table."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_work_grows_with_length
from test_units import assert_split
from test_units_field import leaning

from ctxprune.text import split_sentences
from ctxprune.text.structure import structure

HEAD = "<table><tr><th>Weir</th><th>Toll</th><th>Boats</th></tr>"


def kinds(text: str) -> list[str]:
    spans = split_sentences(text)
    return [role.kind for role in structure(text, spans)]


def test_a_row_stays_whole_with_the_table_in_its_cell() -> None:
    assert_split(
        f"{HEAD}¶<tr><td>Upper</td><td>2 <table><tr><td>by night<td>3</td></tr></table></td><td>7</td></tr>¶"
        "<tr><td>Lower<td>1<table><tr><td>by night<td>2</table><td>9¶<tr><td>Mill<td>4<td>5</table>¶<p>Pay Kim.</p>"
    )


def test_the_tables_of_a_page_laid_out_by_a_table_keep_their_rows() -> None:
    text = (
        "<table><tr><td><table><tr><td><a href=1>Pier</a></td></tr>¶<tr><td><a href=2>Toll</a></td></tr></table></td>¶"
        f"<td><h2>Tolls</h2>¶{HEAD}¶<tr><td>Upper</td><td>2</td><td>7</td></tr></table></td></tr></table>"
    )
    assert_split(text)
    assert kinds(text.replace("¶", ""))[2:] == ["heading", "table header", "table row"]


def test_rows_lean_on_the_header_of_their_table_whatever_stands_between() -> None:
    long = "<p>" + "The boats of the town pass free of any toll. " * 14 + "</p>"
    text = (
        f"{HEAD}\n\n<tr><td>Upper</td><td>2</td><td>7</td></tr>"
        f"<tr><td>Lower</td><td>{long}<table><tr><td>by night</td><td>3</td></tr></table></td><td>9</td></tr>"
        "<tr><td>Mill</td><td>4</td><td>5</td></tr></table><table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>"
    )
    found = leaning(text)
    assert found["<tr><td>Upper</td><td>2</td><td>7</td></tr>"] == HEAD
    assert found["<tr><td>Mill</td><td>4</td><td>5</td></tr></table>"] == HEAD
    nested = next(on for unit, on in found.items() if "by night" in unit)
    assert nested == "<tr><td>Lower</td>"
    assert found["<table><tr><td>a</td><td>b</td></tr>"] != HEAD


def test_a_row_that_begins_with_its_name_is_no_header() -> None:
    text = "<table><tr><th>Keeper</th><td>Kim</td></tr><tr><th>Toll</th><td>2</td></tr></table><p>x</p><p>y</p>"
    assert kinds(text)[:2] == ["table row", "table row"]


@pytest.mark.parametrize(
    "piece", ["<table>", "<tr>", "<table><tr><td>a", "</table>", "<td><table><tr>", "<tr></tr></table>"]
)
def test_work_grows_with_the_length_of_odd_tables(piece: str) -> None:
    assert_work_grows_with_length(
        lambda text: structure(text, split_sentences(text)), piece, before="<p></p><p></p><p></p>"
    )


def test_bars_in_a_line_of_html_make_no_row() -> None:
    assert kinds("<html><title>Weir | Mill</title><p>It leaks.</p><p>Kim knows.</p></html>")[0] == "prose"
