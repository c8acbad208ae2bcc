"""Dumps of databases: each inserted row is a unit and leans on the statement that names its columns."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_structure_grows_with_length
from test_units_field import leaning

HENS = """\
BEGIN;
CREATE TABLE hens (
  id integer,
  name text
);
INSERT INTO hens VALUES (1, 'Frida');
INSERT INTO hens VALUES (2, 'Olga; the
elder');
CREATE TABLE nests (id integer, hen integer);
INSERT INTO nests VALUES (7, 2);
COMMIT;
"""
COPIED = """\
--
-- Data for hens
--

COPY public.hens (id, name) FROM stdin;
1\tFrida
2\tOlga the elder
\\.

ALTER TABLE hens OWNER TO kim;
"""


@pytest.mark.parametrize(("old", "new"), [("hens", "hens"), ("hens", "`hens`"), ("INTO hens", 'INTO main."hens"')])
def test_an_inserted_row_leans_on_its_table(old: str, new: str) -> None:
    found = leaning(text := HENS.replace(old, new))
    table = next(unit for unit in found if unit.startswith("CREATE") and "name text" in unit)
    rows = [unit for unit in found if unit.startswith("INSERT") and "nests" not in unit]
    assert table.endswith(");") and len(rows) == 2 == text.count("VALUES (") - 1
    assert [found[row] for row in rows] == [table, table]
    assert found["INSERT INTO nests VALUES (7, 2);"] == "CREATE TABLE nests (id integer, hen integer);"
    assert found["COMMIT;"] is None


def test_a_copied_row_leans_on_the_statement_that_copies() -> None:
    found = leaning(COPIED)
    copy = "COPY public.hens (id, name) FROM stdin;"
    assert found["1\tFrida"] == found["2\tOlga the elder"] == copy
    assert found["ALTER TABLE hens OWNER TO kim;"] != copy


def test_a_row_of_another_table_leans_on_none() -> None:
    found = leaning(HENS.replace("INTO hens VALUES (1", "INTO geese VALUES (1"))
    assert found["INSERT INTO geese VALUES (1, 'Frida');"] is None


def test_prose_about_statements_is_no_dump() -> None:
    text = "Insert into the slot what you have. Create table manners first.\nUpdate nothing while the hens lay."
    assert list(leaning(text)) == [
        "Insert into the slot what you have.",
        "Create table manners first.",
        "Update nothing while the hens lay.",
    ]


def test_the_copies_of_an_images_recipe_are_no_dump() -> None:
    found = leaning("FROM barn:1\nCOPY . /barn\nCOPY --chown=kim oats /barn/oats\nRUN feed --all\n")
    assert "COPY . /barn" in found
    assert found["COPY --chown=kim oats /barn/oats"] != "COPY . /barn"


@pytest.mark.parametrize(
    "piece", ["INSERT INTO a\n", "CREATE TABLE a (\n", "INSERT INTO a VALUES (1);\n", "COPY a FROM stdin;\n1\t2\n"]
)
def test_work_grows_with_the_length_of_dumps(piece: str) -> None:
    assert_structure_grows_with_length(piece)
