"""Forty turns of an agent, made by hand and by seeded filling: ten shapes of tool results, four questions each.

A turn is a question, a tool call, its result, and the lines in the result that the answer stands in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Turn:
    """answer: lines of the result, or parts of them, that must be left."""

    shape: str
    question: str
    tool: str
    arguments: dict[str, str]
    result: str
    answer: str


Filler = Callable[[random.Random, str], str]
#: By shape: the tool, and four questions, each with the call's arguments and what must be left of the result.
QUESTIONS = Path(__file__).with_name("questions.json")

_CITIES = ["Leeds", "Turin", "Graz", "Oslo", "Porto", "Ghent", "Basel", "Malmo", "Cork", "Lyon", "Brno", "Split"]
_NAMES = ["Okafor", "Lund", "Moreau", "Petrov", "Silva", "Keller", "Novak", "Byrne", "Costa", "Weiss", "Dahl", "Rossi"]
_THINGS = ["lamp", "kettle", "blanket", "bench", "ladder", "bicycle", "mirror", "carpet", "clock", "stove", "bucket"]
_MODULES = ["cart", "invoice", "mailer", "search", "stock", "users", "reports", "session", "export", "queue"]
_VERBS = ["load", "save", "check", "render", "merge", "send", "count", "split", "sort", "reset"]
_PROSE = [
    "The harbour was widened twice, and the old crane still stands beside the ticket office.",
    "Visitors often come in May, when the gardens along the canal are open to everyone.",
    "A small museum shows tools, ropes and the logbooks of three generations of pilots.",
    "The bakery at the corner sells rye bread on weekdays and closes early on Fridays.",
    "Trams run every ten minutes, and a day ticket is sold by the drivers.",
    "Most of the houses were built of brick, with slate brought over from the other shore.",
    "The festival of lights is held in November and draws choirs from the neighbouring towns.",
    "Cyclists may use the towpath, but dogs must be kept on a lead near the locks.",
    "The library lends instruments as well as books, and its reading room faces the park.",
    "In winter the ferry is replaced by a bus that follows the northern bank.",
]


def transcript(seed: int = 7) -> list[Turn]:
    """The forty turns, in an order that mixes the shapes. seed: of what fills the results."""
    rng = random.Random(seed)
    turns = [
        Turn(shape, question, row["tool"], arguments, _FILLERS[shape](rng, answer), answer)
        for shape, row in json.loads(QUESTIONS.read_text(encoding="utf-8")).items()
        for question, arguments, answer in row["asked"]
    ]
    return [turns[at * 4 % 40 + at // 10] for at in range(40)]


def _orders(rng: random.Random, answer: str) -> str:
    rows = [
        {
            "id": rng.randint(10_000, 99_999),
            "customer": {"name": rng.choice(_NAMES), "city": rng.choice(_CITIES)},
            "items": [{"title": rng.choice(_THINGS), "quantity": rng.randint(1, 4)} for _ in range(rng.randint(1, 3))],
            "note": f"paid by card, parcel {rng.randint(100, 999)} left the depot on time",
        }
        for _ in range(30)
    ]
    rows[rng.randrange(30)]["note"] = answer
    return json.dumps({"page": 1, "pages": 3, "results": rows, "took_ms": 12}, indent=rng.choice([None, 2]))


def _events(rng: random.Random, answer: str) -> str:
    rows = [
        {
            "time": f"2026-05-{day:02d}T08:00:00Z",
            "user": rng.choice(_NAMES),
            "event": f"opened the {rng.choice(_THINGS)} page",
        }
        for day in range(1, 29)
    ]
    rows[rng.randrange(28)]["event"] = answer
    return "\n".join(map(json.dumps, rows)) + "\n"


def _log(rng: random.Random, answer: str) -> str:
    lines = [
        f"2026-05-12 09:{at // 60:02d}:{at % 60:02d},{rng.randint(100, 999)} {rng.choice(['INFO', 'INFO', 'DEBUG'])} "
        f"shop.{rng.choice(_MODULES)} {rng.choice(_VERBS)} of {rng.choice(_THINGS)} took {rng.randint(2, 90)} ms"
        for at in range(70)
    ]
    lines[rng.randrange(70)] = f"2026-05-12 09:01:13,007 ERROR shop.{rng.choice(_MODULES)} {answer}"
    return "\n".join(lines) + "\n"


def _grep(rng: random.Random, answer: str) -> str:
    hits = [
        f"shop/{rng.choice(_MODULES)}.py:{rng.randint(3, 400)}:    {rng.choice(_VERBS)}_{rng.choice(_THINGS)}"
        f"(session, {rng.choice(_THINGS)}_id)"
        for _ in range(40)
    ]
    hits[rng.randrange(40)] = answer
    return "\n".join(hits) + "\n"


def _listing(rng: random.Random, answer: str) -> str:
    rows = [
        f"-rw-r--r-- 1 shop shop {rng.randint(200, 90_000):6d} May {rng.randint(1, 28):2d} 10:{rng.randint(10, 59)} "
        f"{rng.choice(_VERBS)}_{rng.choice(_THINGS)}{rng.randint(1, 99)}.{rng.choice(['py', 'txt', 'csv', 'yml'])}"
        for _ in range(45)
    ]
    rows[rng.randrange(45)] = f"-rw-r--r-- 1 shop shop  41210 May  9 10:31 {answer}"
    return "total 1204\n" + "\n".join(rows) + "\n"


def _diff(rng: random.Random, answer: str) -> str:
    parts = []
    special = rng.randrange(10)
    for at, module in enumerate(_MODULES):
        verb, thing = rng.choice(_VERBS), rng.choice(_THINGS)
        old, new = f"    {verb}_{thing}(items)", f"    {verb}_{thing}(items, limit={rng.randint(2, 90)})"
        if at == special:
            new = answer
        head = f"diff --git a/shop/{module}.py b/shop/{module}.py\nindex 3f2a..9c1b 100644\n"
        names = f"--- a/shop/{module}.py\n+++ b/shop/{module}.py\n"
        line = rng.randint(5, 200)
        hunk = (
            f"@@ -{line},3 +{line},3 @@ def run(items):\n     items = list(items)\n-{old}\n+{new}\n     return items\n"
        )
        parts.append(head + names + hunk)
    return "".join(parts)


def _code(rng: random.Random, answer: str) -> str:
    functions = [
        f"def {rng.choice(_VERBS)}_{rng.choice(_THINGS)}_{at}(session, {rng.choice(_THINGS)}):\n"
        f'    """{rng.choice(_VERBS).capitalize()} what belongs to the {rng.choice(_THINGS)}."""\n'
        f"    rows = session.query({rng.choice(_THINGS)!r}, limit={rng.randint(10, 90)})\n"
        f"    return [row for row in rows if row.{rng.choice(_THINGS)}]\n"
        for at in range(18)
    ]
    functions[rng.randrange(18)] = answer
    return '"""Parts of the shop."""\n\nimport json\nfrom shop.base import session\n\n\n' + "\n\n".join(functions)


def _csv(rng: random.Random, answer: str) -> str:
    rows = [
        f"{rng.choice(_NAMES)} {at},{rng.choice(_CITIES)},{rng.randint(18, 80)},{rng.randint(100, 9000)}"
        for at in range(50)
    ]
    rows[rng.randrange(50)] = answer
    return "name,city,age,balance\n" + "\n".join(rows) + "\n"


def _table(rng: random.Random, answer: str) -> str:
    rows = [
        f"| {city} {at} | {rng.randint(2, 40)} | {rng.randint(1850, 1990)} |" for at in (1, 2, 3) for city in _CITIES
    ]
    rows[rng.randrange(36)] = answer
    return "| town | tram lines | opened |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"


def _page(rng: random.Random, answer: str) -> str:
    sentences = [rng.choice(_PROSE) for _ in range(36)]
    sentences[rng.randrange(36)] = answer
    paragraphs = [" ".join(sentences[at : at + 4]) for at in range(0, 36, 4)]
    return "# A town by the water\n\n" + "\n\n".join(paragraphs) + "\n"


#: What fills the results of a shape.
_FILLERS: dict[str, Filler] = {
    "json": _orders,
    "json lines": _events,
    "log": _log,
    "search": _grep,
    "listing": _listing,
    "diff": _diff,
    "code": _code,
    "csv": _csv,
    "table": _table,
    "page": _page,
}
