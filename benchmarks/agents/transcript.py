"""Forty turns of an agent, made by hand and by seeded filling: ten shapes of tool results, four questions each.

A turn is a question, a tool call, its result, and the lines in the result that the answer stands in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """answer: lines of the result, or parts of them, that must be left."""

    shape: str
    question: str
    tool: str
    arguments: dict[str, str]
    result: str
    answer: str


Filler = Callable[[random.Random, str, str], str]

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
        Turn(shape, question, tool, arguments, fill(rng, question, answer), answer)
        for shape, tool, fill, asked in _SHAPES
        for question, arguments, answer in asked
    ]
    return [turns[at * 4 % 40 + at // 10] for at in range(40)]


def _orders(rng: random.Random, question: str, answer: str) -> str:
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


def _events(rng: random.Random, question: str, answer: str) -> str:
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


def _log(rng: random.Random, question: str, answer: str) -> str:
    lines = [
        f"2026-05-12 09:{at // 60:02d}:{at % 60:02d},{rng.randint(100, 999)} {rng.choice(['INFO', 'INFO', 'DEBUG'])} "
        f"shop.{rng.choice(_MODULES)} {rng.choice(_VERBS)} of {rng.choice(_THINGS)} took {rng.randint(2, 90)} ms"
        for at in range(70)
    ]
    lines[rng.randrange(70)] = f"2026-05-12 09:01:13,007 ERROR shop.{rng.choice(_MODULES)} {answer}"
    return "\n".join(lines) + "\n"


def _grep(rng: random.Random, question: str, answer: str) -> str:
    hits = [
        f"shop/{rng.choice(_MODULES)}.py:{rng.randint(3, 400)}:    {rng.choice(_VERBS)}_{rng.choice(_THINGS)}"
        f"(session, {rng.choice(_THINGS)}_id)"
        for _ in range(40)
    ]
    hits[rng.randrange(40)] = answer
    return "\n".join(hits) + "\n"


def _listing(rng: random.Random, question: str, answer: str) -> str:
    rows = [
        f"-rw-r--r-- 1 shop shop {rng.randint(200, 90_000):6d} May {rng.randint(1, 28):2d} 10:{rng.randint(10, 59)} "
        f"{rng.choice(_VERBS)}_{rng.choice(_THINGS)}{rng.randint(1, 99)}.{rng.choice(['py', 'txt', 'csv', 'yml'])}"
        for _ in range(45)
    ]
    rows[rng.randrange(45)] = f"-rw-r--r-- 1 shop shop  41210 May  9 10:31 {answer}"
    return "total 1204\n" + "\n".join(rows) + "\n"


def _diff(rng: random.Random, question: str, answer: str) -> str:
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


def _code(rng: random.Random, question: str, answer: str) -> str:
    functions = [
        f"def {rng.choice(_VERBS)}_{rng.choice(_THINGS)}_{at}(session, {rng.choice(_THINGS)}):\n"
        f'    """{rng.choice(_VERBS).capitalize()} what belongs to the {rng.choice(_THINGS)}."""\n'
        f"    rows = session.query({rng.choice(_THINGS)!r}, limit={rng.randint(10, 90)})\n"
        f"    return [row for row in rows if row.{rng.choice(_THINGS)}]\n"
        for at in range(18)
    ]
    functions[rng.randrange(18)] = answer
    return '"""Parts of the shop."""\n\nimport json\nfrom shop.base import session\n\n\n' + "\n\n".join(functions)


def _csv(rng: random.Random, question: str, answer: str) -> str:
    rows = [
        f"{rng.choice(_NAMES)} {at},{rng.choice(_CITIES)},{rng.randint(18, 80)},{rng.randint(100, 9000)}"
        for at in range(50)
    ]
    rows[rng.randrange(50)] = answer
    return "name,city,age,balance\n" + "\n".join(rows) + "\n"


def _table(rng: random.Random, question: str, answer: str) -> str:
    rows = [
        f"| {city} {at} | {rng.randint(2, 40)} | {rng.randint(1850, 1990)} |" for at in (1, 2, 3) for city in _CITIES
    ]
    rows[rng.randrange(36)] = answer
    return "| town | tram lines | opened |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"


def _page(rng: random.Random, question: str, answer: str) -> str:
    sentences = [rng.choice(_PROSE) for _ in range(36)]
    sentences[rng.randrange(36)] = answer
    paragraphs = [" ".join(sentences[at : at + 4]) for at in range(0, 36, 4)]
    return "# A town by the water\n\n" + "\n\n".join(paragraphs) + "\n"


def _function(name: str, docstring: str, body: str) -> str:
    return f'def {name}(session, order):\n    """{docstring}"""\n    {body}\n'


_Asked = list[tuple[str, dict[str, str], str]]
_SHAPES: list[tuple[str, str, Filler, _Asked]] = [
    ("json", "list_orders", _orders, [
        ("Which order was held back at the customs?", {"page": "1"}, "held at the customs because the invoice was missing"),
        ("Did any customer ask for a refund?", {"page": "1"}, "the customer asked for a refund of 40 euros after the glass broke"),
        ("Which parcel came back because of a wrong address?", {"page": "1"}, "returned to us: the address does not exist"),
        ("Is there an order that waits for a spare part?", {"page": "1"}, "waiting for a spare part from the maker until June"),
    ]),
    ("json lines", "read_events", _events, [
        ("Who changed the password?", {"day": "all"}, "changed the password from a new device"),
        ("Was an account deleted?", {"day": "all"}, "deleted the account and all saved addresses"),
        ("Who could not log in?", {"day": "all"}, "failed to log in five times in a row"),
        ("Did someone export the customer list?", {"day": "all"}, "exported the customer list to a spreadsheet"),
    ]),
    ("log", "read_log", _log, [
        ("Why did the payment fail?", {"service": "shop"}, "payment refused: the card issuer reports insufficient funds"),
        ("Why does the server run out of memory?", {"service": "shop"}, "out of memory while building the yearly report"),
        ("What happened with code E4471?", {"service": "shop"}, "E4471: lock on table parcels not released after 30 s"),
        ("Why could no mail be sent?", {"service": "shop"}, "mail server rejected the sender address, no mail was sent"),
    ]),
    ("search", "grep", _grep, [
        ("Where is the discount computed?", {"pattern": "("}, "shop/cart.py:88:def discount(order, customer): return order.total * customer.rebate"),
        ("Where is the tax rate set?", {"pattern": "="}, "shop/settings.py:12:TAX_RATE = 0.19  # the tax rate of all invoices"),
        ("Where are old sessions removed?", {"pattern": "session"}, "shop/session.py:140:def remove_expired_sessions(older_than): store.delete(older_than)"),
        ("Who calls retry_payment?", {"pattern": "retry"}, "shop/queue.py:61:    retry_payment(order, attempt + 1)"),
    ]),
    ("listing", "ls", _listing, [
        ("Is there a file with the database migration?", {"path": "."}, "database_migration.sql"),
        ("Where is the backup script?", {"path": "."}, "nightly_backup.sh"),
        ("Which file holds the licence?", {"path": "."}, "LICENCE.txt"),
        ("Where is deploy-prod.yaml?", {"path": "."}, "deploy-prod.yaml"),
    ]),
    ("diff", "git_diff", _diff, [
        ("Which change added a timeout to the connection?", {"rev": "HEAD~1"}, "    connection = connect(host, timeout=30)"),
        ("Where was the currency changed to francs?", {"rev": "HEAD~1"}, "    currency = 'CHF'  # francs instead of euros"),
        ("Was the password check made stricter?", {"rev": "HEAD~1"}, "    check_password(user, minimum_length=14)"),
        ("What was done about emails being sent twice?", {"rev": "HEAD~1"}, "    if not already_sent(email): send(email)"),
    ]),
    ("code", "read_file", _code, [
        ("How is the shipping cost computed?", {"path": "parts.py"}, _function("shipping_cost", "The cost of shipping by weight.", "return 5 if order.weight < 20 else 12")),
        ("How are stolen cards detected?", {"path": "parts.py"}, _function("is_stolen_card", "Whether the card was reported stolen.", "return order.card in session.blocked_cards")),
        ("What does archive_order do?", {"path": "parts.py"}, _function("archive_order", "Move a closed order away.", "session.move(order, 'archive')")),
        ("How is an invoice number made?", {"path": "parts.py"}, _function("invoice_number", "The number of the next invoice.", "return f'{order.year}-{session.next_number():05d}'")),
    ]),
    ("csv", "query", _csv, [
        ("What is the balance of Adeyemi?", {"table": "customers"}, "Adeyemi,Bergen,44,7321"),
        ("Which customer lives in Reykjavik?", {"table": "customers"}, "Jonsson,Reykjavik,51,260"),
        ("How old is Takahashi?", {"table": "customers"}, "Takahashi,Lyon,63,1190"),
        ("Who has customer number K-20481?", {"table": "customers"}, "Mbeki K-20481,Ghent,38,515"),
    ]),
    ("table", "lookup", _table, [
        ("How many tram lines does Ljubljana have?", {"page": "trams"}, "| Ljubljana | 5 | 1901 |"),
        ("When was the tram of Bilbao opened?", {"page": "trams"}, "| Bilbao | 3 | 1876 |"),
        ("Which town opened its tram in 1789?", {"page": "trams"}, "| Oldstead | 1 | 1789 |"),
        ("Tell me about the trams of Tampere.", {"page": "trams"}, "| Tampere | 4 | 2021 |"),
    ]),
    ("page", "fetch", _page, [
        ("When was the lighthouse built?", {"url": "https://towns.example/1"}, "The lighthouse was built in 1887 after two ships had been lost in one night."),
        ("What does a ticket for the cable car cost?", {"url": "https://towns.example/2"}, "A ticket for the cable car costs 9 francs, and children ride for half the price."),
        ("Who founded the glass works?", {"url": "https://towns.example/3"}, "The glass works were founded by Johanna Brandt, a merchant's widow."),
        ("Why was the bridge closed?", {"url": "https://towns.example/4"}, "The bridge was closed because rust had weakened two of its cables."),
    ]),
]  # fmt: skip
