"""Callers' patterns: the same matches as Python's `re` where both take them, else a refusal by name; and an end."""

import re
import threading
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.integrations.server.engine.ticket import Allowance, ExpiredError, Ticket
from ctxprune.integrations.server.patterns import Search, checked_patterns

LETTERS = "ab1_ .-\nüßЖ中٣é\u00a0’"
ATOMS = st.sampled_from(
    [
        *["a", "b", "ü", "Ж", ".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\b", "^", "$", r"\A", r"\Z"],
        *["[ab]", "[^a]", r"[\w-]", r"[^\W\d_]", r"[^\s.]", r"[\s\S]", r"[\D_]", "[a-é]", "[^ü-中]"],
        *[r"\.", r"\xfc", r"\u4e2d", "-", " "],
    ]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{,2}", "*?", "+?"])).map(
            lambda pair: f"(?:{pair[0]}x){pair[1]}" if "\\b" in pair[0] else f"({pair[0]}){pair[1]}"
        ),
        inner.map(lambda part: f"(?i:{part})"),
        inner.map(lambda part: f"(?ms:{part})"),
    ),
    max_leaves=6,
)


def search(seconds=60.0, allowance=60.0):
    return Search(Ticket(time.monotonic() + seconds, allowance=Allowance(allowance)), threading.Lock())


def touched(pattern, text, **limits):
    """Places that a server's match touches."""
    one = search(**limits)
    try:
        (bound,) = one.bound(checked_patterns([pattern], regex=True, texts=[text]))
        return {at for match in bound.finditer(text) for at in range(match.start(), match.end())}
    finally:
        one.close()


def slowly(pattern, text):
    return {at for match in re.finditer(pattern, text) for at in range(*match.span())}


@settings(max_examples=250, deadline=None)
@given(pattern=PATTERNS, text=st.text(LETTERS, max_size=14))
def test_what_both_engines_take_touches_the_same_characters(pattern, text):
    # after a match of nothing the engines go on at different places
    assume(all(match.end() > match.start() for match in re.finditer(pattern, text)))
    assert touched(pattern, text) == slowly(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"\bÜbung\b", "Die Übung, keine Vorübung. Übung!"),
        (r"\b\w+ung\b", "Zahlung überwiesen; Änderung folgt"),
        (r"(?i)straße \d+", "STRASSE 5, Straße ٣٤"),
        (r"§\s*\d+[a-z]?", "nach § 12a und §\u00a07"),
        (r"^Total: .*$", "x\nTotal: 7 €\n"),
        (r"(?m)^Total: .*$", "x\nTotal: 7 €\nrest"),
        (r"[x[:alph]]+", "a:l] h]"),
        (r"[]x]+[^]]", "a]xy"),
        (r"a{,2}b{2}c{", "aabbc{ abbc{"),
        ("𐐷+", "🜁𐐷𐐷é𐐷"),
        (r"(?P<year>\d{4})-\d\d", "1911-05, ١٩١١-٠٥"),
        (r"\N{EURO SIGN}\d", "€7"),
        ("\ud800x", "a\ud800x"),
        ("end$", "the end\n"),
    ],
)
def test_patterns_that_people_write(pattern, text):
    assert touched(pattern, text) == slowly(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(\w)-\1", "reference back"),
        (r"(?P<q>['\"]).*?(?P=q)", "reference back"),
        (r"foo(?=bar)", "looking ahead"),
        (r"(?<!un)known", "looking behind"),
        (r"(?>a+)b", "atomic group"),
        (r"a++b", "gives nothing back"),
        (r"(a)?(?(1)b|c)", "condition"),
        (r"\Bx", r"\B"),
        (r"[^\Wa]", r"\W"),
        (r"x{5000}", "repetition size"),
        (r"((x{100}){100}){100}", "repetition size"),
        (r"(", "missing"),
        (r"[a", "not closed"),
        (r"[z-a]", "range z-a"),
        (r"\qx", r"\q"),
        (r"*x", "repetition"),
        ("(?:(?:(?:){9999}){9999}){9999}a", "repetition size"),
        ("(?:" * 60 + "b" + "){1,9}" * 60, "repetition size"),
    ],
)
def test_what_the_engine_does_not_take_is_refused_by_name(pattern, said):
    with pytest.raises(InputError, match="protect has a bad regular expression") as refused:
        checked_patterns([pattern], regex=True, texts=["text"])
    assert said in str(refused.value)


@settings(max_examples=150, deadline=None)
@given(pattern=st.text("()[]{}?:*+|\\^$.,0189abbwdsBZxuU<>=!P#-é\n", min_size=1, max_size=200))
def test_a_pattern_of_any_shape_is_taken_or_refused_as_the_callers_fault(pattern):
    try:
        checked_patterns([pattern], regex=True, texts=["x" * 1000])
    except InputError as error:
        assert "protect" in str(error)


def test_patterns_that_would_keep_python_busy_for_ever_end():
    for pattern in ("(?:a+)+$", "(?:a|aa)*b", "(a?){25}a{25}", "(?:(?:a*)*)*b", "(.*)(.*)(.*)(.*)(.*)[^a]"):
        touched(pattern, "a" * 5000)


def test_a_search_that_cannot_be_bounded_is_refused_before_it_begins():
    with pytest.raises(InputError, match="steps, the limit is"):
        checked_patterns(["(?:a?){300}a{300}b"], regex=True, texts=["a" * 500_000])
    literal = checked_patterns(["x" * 200], regex=True, texts=["x" * 4_000_000])
    assert literal[0].translation.is_literal


def test_every_match_scans_the_rest_and_is_stopped_by_the_allowance_or_the_deadline():
    quadratic, text = "(?s)a.*z|a-", "a-" * 100_000
    with pytest.raises(InputError, match=r"protect took longer than 0\.05 s in all"):
        touched(quadratic, text + "b", allowance=0.05)
    with pytest.raises(ExpiredError):
        touched(quadratic, text + "b", seconds=0.05)


def test_an_allowance_is_one_for_all_searches_of_a_request():
    allowance = Allowance(0.2)
    patterns = checked_patterns(["(?s)a.*z|a-"], regex=True, texts=[])
    failed = 0
    for _ in range(3):
        one = Search(Ticket(time.monotonic() + 60, allowance=allowance), threading.Lock())
        with pytest.raises(InputError):
            list(one.bound(patterns)[0].finditer("a-" * 100_000))
        one.close()
        failed += 1
    assert failed == 3
    assert allowance.seconds < 0


def test_one_job_searches_at_a_time_and_a_waiting_one_keeps_its_deadline():
    slot = threading.Lock()
    first, second = (Search(Ticket(time.monotonic() + wait), slot) for wait in (60, 0.05))
    patterns = checked_patterns(["a"], regex=True, texts=[])
    assert list(first.bound(patterns)[0].finditer("banana"))
    with pytest.raises(ExpiredError):
        list(second.bound(patterns)[0].finditer("banana"))
    second.close()
    first.close()
    assert slot.acquire(blocking=False)


def test_literal_patterns_mean_themselves():
    patterns = checked_patterns(["(a+b)*", "é."], regex=False, texts=["x"])
    one = search()
    found = [[(m.start(), m.end()) for m in bound.finditer("é. (a+b)* ab")] for bound in one.bound(patterns)]
    one.close()
    assert found == [[(3, 9)], [(0, 2)]]
