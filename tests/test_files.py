"""One writer at a time: locks that follow no link, lose no holder and leave nothing behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxprune.errors import InputError
from ctxprune.files import LOCK, decoded, only_writer, read_rows, remove_matching, write_rows, write_whole


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(InputError, match="another process is writing to"), only_writer(tmp_path):
        pytest.fail("two writers")
    with only_writer(tmp_path):
        assert (tmp_path / LOCK).is_file()
    assert list(tmp_path.iterdir()) == []


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), only_writer(tmp_path):
        _ = 1 / 0
    with only_writer(tmp_path):
        pass


def test_a_lock_file_of_a_killed_writer_is_taken_over_as_it_is(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("left")
    with only_writer(tmp_path):
        assert (tmp_path / LOCK).read_text() == "left"


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path, exists: bool) -> None:
    victim = tmp_path / "letters.txt"
    if exists:
        victim.write_text("dear aunt")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / LOCK).symlink_to(victim)
    with pytest.raises(InputError, match="is a link"), only_writer(folder):
        pytest.fail("held a link")
    assert victim.exists() == exists and (not exists or victim.read_text() == "dear aunt")


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOCK)
    with pytest.raises(InputError, match="no plain file"), only_writer(tmp_path):
        pytest.fail("held a pipe")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / LOCK).mkdir()
    with pytest.raises(InputError, match="cannot write to"), only_writer(tmp_path / "other"):
        pytest.fail("held a folder")
    with pytest.raises(InputError, match="cannot write to"), only_writer(tmp_path / "absent"):
        pytest.fail("held nothing")


def test_never_two_holders_however_often_it_changes_hands(tmp_path: Path) -> None:
    inside, most, taken, guard = 0, 0, 0, threading.Lock()

    def contend(_: int) -> None:
        nonlocal inside, most, taken
        for _attempt in range(300):
            try:
                with only_writer(tmp_path):
                    with guard:
                        inside += 1
                        taken += 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except InputError:
                continue

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(contend, range(4)))
    assert most == 1 and taken >= 1


def test_matching_names_are_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("x")
    folder = tmp_path / "run"
    (folder / ".part-1" / "deep").mkdir(parents=True)
    (folder / ".part-2").write_text("x")
    (folder / ".part-3").symlink_to(outside)
    (folder / "part-4").write_text("x")
    remove_matching(folder, ".part-*", ".other-*")
    assert [path.name for path in folder.iterdir()] == ["part-4"]
    assert (outside / "kept.txt").exists()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_rows_come_back_as_they_were_written(tmp_path: Path, name: str, ascii_only: bool) -> None:
    rows = [{"text": "Größe\u2028und\nmehr"}, {"text": "", "n": [1, None]}]
    path = tmp_path / "new" / name
    assert write_rows(path, iter(rows), ascii_only=ascii_only) == 2
    assert [row for _, row in read_rows(path)] == rows
    assert [each.name for each in path.parent.iterdir()] == [name]
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")


def test_rows_that_break_off_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert write_rows(path, []) == 0
    with pytest.raises(ZeroDivisionError):
        write_rows(path, ({"n": 1 / n} for n in (1, 0)))
    assert path.read_bytes() == b""


@pytest.mark.parametrize("content", [b"\x00\xff", "für immer\ud800"])
def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "whole"
    for _ in range(2):
        write_whole(path, content)
        write_whole(path, content, unfinished=tmp_path / "mine.tmp")
    expected = content if isinstance(content, bytes) else "für immer\\ud800".encode()
    assert path.read_bytes() == expected and list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_leaves_nothing_unfinished(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"%PDF-1.7\n%more", "x is a PDF, not plain text; make that of it first: pdftotext FILE"),
        (b"PK\x03\x04word/document.xml", "pandoc -t plain FILE"),
        ("Grüße aus Köln".encode("latin1"), r"x is not UTF-8 text .* at byte 2\); make it so first: iconv -f ENCODING"),
    ],
)
def test_what_is_no_plain_text_is_named_with_the_way_to_make_some(content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        decoded(content, "x")


def test_a_byte_order_mark_is_no_text_and_line_ends_stay() -> None:
    assert decoded(b"\xef\xbb\xbfone\r\ntwo\n", "x") == "one\r\ntwo\n"


def test_of_rows_that_break_off_nothing_is_left(tmp_path: Path) -> None:
    def breaking() -> Iterator[dict[str, int]]:
        yield {"row": 1}
        raise ValueError("the source broke off")

    with pytest.raises(ValueError, match="broke off"):
        write_rows(tmp_path / "rows.jsonl", breaking())
    assert list(tmp_path.iterdir()) == []
