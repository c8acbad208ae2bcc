"""Text as extraction leaves it is scored as what it means, and what is kept is a slice of it as it stands."""

import unicodedata

import pytest

from ctxprune import Context, Pipeline, load
from ctxprune.text.words import bm25_scores, tokenise

FILL = "The kiosk sells maps and stamps. A heron sleeps on the weir. Dogs are kept on a lead. "
FACT = "The old lighthouse on the northern reef was officially refurbished in 1928 by five craftsmen."
QUERY = "When was the lighthouse officially refurbished?"

# What a person reads as FACT, in the forms that PDF dumps, web pages and word processors give it.
FORMS = {
    "hyphenated": (
        "The old light-\nhouse on the north-\nern reef was offi-\ncially refur-\nbished in 1928 by five crafts-\nmen."
    ),
    "indented": (
        "The old light-\r\n    house on the northern reef "
        "was offi- \r\n    cially refurbished in 1928 by five craftsmen."
    ),
    "flattened": "The old light- house on the northern reef was offi- cially refur- bished in 1928 by five craftsmen.",
    "ligatures": "The old lighthouse on the northern reef was oﬃcially refurbished in 1928 by ﬁve craftsmen.",
    "ligature at a line end": (
        "The old lighthouse on the northern reef was oﬃ-\ncially refurbished in 1928 by ﬁve craftsmen."
    ),
    "soft hyphens": FACT.replace("fur", "fur\u00ad").replace("light", "light\u00ad"),
    "soft hyphen at a line end": FACT.replace("refur", "refur\u00ad\n"),
    "not sign at a line end": FACT.replace("refur", "refur¬\n"),
    "zero width": FACT.replace("h", "\u200bh").replace("s i", "s\u2060 i"),
    "byte order mark": "\ufeff" + FACT,
    "full width": FACT.replace("1928", "１９２８").replace("lighthouse", "ｌｉｇｈｔｈｏｕｓｅ"),
    "bold letters": FACT.replace("lighthouse", "𝐥𝐢𝐠𝐡𝐭𝐡𝐨𝐮𝐬𝐞"),
    "unbreakable blanks": FACT.replace(" ", "\u00a0"),
    "thin blanks": FACT.replace(" ", "\u2009"),
    "windows": FACT.replace(" reef ", " reef\r\n"),
    "old macintosh": FACT.replace(" reef ", " reef\r"),
    "justified": FACT.replace(" ", "  ").replace("was  ", "was   "),
    "footnote marks": FACT.replace("lighthouse", "lighthouse³").replace("craftsmen", "craftsmen¹²"),
}


def read(compressor: str, query: str, text: str, **options: object) -> list[tuple[str, float]]:
    """(kept or removed slice, score) of each unit."""
    (result,) = Pipeline([load(compressor, budget=10_000, **options)]).run([Context.of(query, [text])])
    (document,) = result.to_dict()["documents"]
    spans = sorted([*document["kept_spans"], *document["removed_spans"]], key=lambda span: span["start"])
    return [(text[span["start"] : span["end"]], span["score"]) for span in spans]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compressor", ["provence", "bm25-sentences", "recomp-extractive", "dslr"])
def test_a_sentence_scores_what_it_means(compressor: str, form: str) -> None:
    plain = read(compressor, QUERY, FILL + FACT)
    marred = read(compressor, QUERY, FILL + FORMS[form])
    assert [text for text, _ in marred[:3]] == [text for text, _ in plain[:3]]
    assert marred[3][0] == FORMS[form].strip()
    assert marred[3][1] == pytest.approx(plain[3][1], abs=0.02)


@pytest.mark.parametrize("form", FORMS)
def test_a_question_is_read_the_same_way(form: str) -> None:
    question = FORMS[form].replace("The old", "When was the old")
    assert read("bm25-sentences", question, FILL + FACT)[3][1] == pytest.approx(
        read("bm25-sentences", FACT.replace("The old", "When was the old"), FILL + FACT)[3][1]
    )


def test_decomposed_accents_in_the_question_or_the_text() -> None:
    text = "Le phare fut rénové à Étretat. La buvette est fermée. Le héron dort."
    query = "Qui a rénové Étretat ?"
    for form in ("NFC", "NFD"):
        for other in ("NFC", "NFD"):
            scores = read("bm25-sentences", unicodedata.normalize(other, query), unicodedata.normalize(form, text))
            assert scores[0][1] > 0 == scores[1][1] == scores[2][1]


@pytest.mark.parametrize("form", ["hyphenated", "soft hyphen at a line end", "zero width", "ligatures"])
def test_words_are_judged_by_what_they_mean(form: str) -> None:
    plain = dict(read("llmlingua2", "", FILL + FACT))
    marred = read("llmlingua2", "", FILL + FORMS[form])
    assert "".join(text for text, _ in marred).replace(" ", "") == (FILL + FORMS[form]).replace(" ", "").replace(
        "  ", ""
    )
    last = [score for text, score in marred if text.endswith(("men.", "craftsmen."))]
    assert last[-1] == pytest.approx(plain["craftsmen."], abs=0.02)


def test_a_word_broken_at_a_line_end_goes_or_stays_whole() -> None:
    words = [text for text, _ in read("random-words", "", FORMS["hyphenated"])]
    assert "refur-\nbished" in words
    assert "crafts-\nmen." in words


@pytest.mark.parametrize(
    ("language", "text", "query", "shared"),
    [
        ("de", "Die Brücken wurden gebaut", "Wann wurde die Bruecke oder Brücke gebaut", {"bruck", "gebaut"}),
        ("fr", "Les forêts brûlées", "la forêt", {"foret"}),
        ("es", "Las iglesias antiguas", "la iglesia", {"iglesi"}),
        ("ru", "Мосты построены", "мост", {"мост"}),
        ("nl", "De molens draaien", "een molen", {"molen"}),
        ("tr", "Köprüler açıldı", "KÖPRÜLER", {"kopruler"}),
    ],
)
def test_words_of_a_language_meet(language: str, text: str, query: str, shared: set[str]) -> None:
    assert set(tokenise(text, language)) & set(tokenise(query, language)) == shared


def test_english_endings_are_not_taken_off_german_words() -> None:
    german = "Der Garten wird von der Polizei und dem Minister bewacht. Sie sind alle im Dienst."
    assert tokenise("Polizei Tüte", "de") == ["polizei", "tute"]
    alone = bm25_scores("Wer bewacht den Garten?", [german[:57], german[57:]])
    named = bm25_scores("Wer bewacht den Garten?", [german[:57], german[57:]], language="de")
    assert alone.tolist() == named.tolist()
    assert alone[0] > 0 == alone[1]


def test_accents_and_special_letters_are_folded() -> None:
    assert tokenise("Łódź Århus Straße Œuvre İstanbul Ёлка", "xx") == [
        "lodz",
        "arhus",
        "strasse",
        "oeuvre",
        "istanbul",
        "елка",
    ]
    assert tokenise("東京タワー", None) == ["東京", "京タ", "タワ", "ワー"]
    assert tokenise("한국어", None) == ["한국", "국어"]
    assert tokenise("مُحَمَّد", None) == tokenise("محمد", None)
