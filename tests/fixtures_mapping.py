"""Questions to map, what `ctxprune compress --batch` makes of them, and a crew without processes."""

import json
from pathlib import Path

from ctxprune.cli import main
from ctxprune.integrations.mapping.worker import Died, PartWorker


def question_rows(count: int) -> list[dict]:
    """Questions with two documents; some have no id, and texts are of several lengths and scripts."""
    rows = []
    for number in range(count):
        text = f"Bridge {number} is of granite. It was opened in {1700 + number}. " + "Swallows nest there. " * (
            number % 4
        )
        documents = [{"id": f"b{number}", "title": "Brücke 橋", "text": text}, "The ferry runs. Bicycles travel free."]
        row = {"question": f"When was bridge {number} opened?", "documents": documents}
        rows.append(row if number % 3 else {"id": f"q{number}", **row})
    return rows


def passages(count: int) -> list[dict]:
    return [
        {"id": f"p{n}", "title": "T", "text": f"Tower {n} is old. It leans." if n % 5 else ""} for n in range(count)
    ]


def write_jsonl(path: Path, rows: list) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", errors="backslashreplace")
    return path


def batch_output(source: Path, capfdbinary, *options: str) -> bytes:
    """The bytes that `ctxprune compress --batch` prints, timings taken out of every line."""
    assert main(["compress", "--batch", str(source), *options]) == 0
    lines = []
    for line in capfdbinary.readouterr().out.decode().splitlines():
        row = json.loads(line)
        del row["seconds"]
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def joined(folder: Path, suffix: str = ".jsonl") -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob(f"part-*{suffix}")))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """What a task raises to have its worker die."""


class InlineCrew:
    """Does jobs in this process, one at a time, the last given first, so that parts come out of order."""

    def __init__(self, work, folder, *, size):
        self.work, self.folder, self.size = work, folder, size
        self.workers, self.jobs = {}, []

    def give(self, worker, job):
        self.workers.setdefault(worker, PartWorker(self.work, self.folder))
        self.jobs.append((worker, job))

    def wait(self):
        worker, job = self.jobs.pop()
        try:
            return worker, self.workers[worker].attempt(job)
        except Killed:
            del self.workers[worker]
            return worker, Died("signal 9")

    def close(self):
        self.workers.clear()
