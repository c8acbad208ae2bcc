"""Sentences in other languages than English: dates, ordinals, abbreviations, citations, quotations, guesses."""

from __future__ import annotations

import pytest

from ctxprune.errors import InputError
from ctxprune.text import split_sentences
from ctxprune.text.language import LANGUAGES, checked_language, function_words, guess_language

# "|" stands where a unit ends; the text itself is the same without it. Each row is split with the language named and
# with the language guessed.
SENTENCES = [
    ("de", "Am 3. März 1928 begann der Bau.| Er dauerte bis zum 14. August.| Im 20. Jahrhundert kam der Tunnel."),
    (
        "de",
        "Das Gesetz vom 3. 4. 1987 gilt.| Der 2. Weltkrieg zerstörte die Stadt.| Sie war 1945 leer.| "
        "Danach kam der Aufbau.",
    ),
    ("de", "Die Straße wurde 1936 gebaut.| Danach kam das Wasser.| Es waren 12.| Dann kamen die anderen."),
    (
        "de",
        "Nach § 433 Abs. 1 S. 2 BGB muss der Verkäufer die Sache liefern.| "
        "Das gilt auch nach Art. 12 Abs. 3 GG (vgl. Rn. 17).",
    ),
    (
        "de",
        "Das Az. 3 C 21/04 und die Nr. 7 der Anlage, z. B. Seite 4, sind i. d. R. Gegenstand der "
        "Klage.| Sie sind es nicht, d. h. Frau Dr. Weiß irrt.",
    ),
    ("de", "Die Firma Kern & Co. KG liefert Schrauben, Muttern usw.| Das Lager ist in Ulm."),
    ("de", "„Komm herein. Setz dich.“, sagte sie.| »Gern. Danke.«| Er nahm Platz."),
    ("de", "König Ludwig II. Wittelsbach baute Schlösser.| Er starb 1886.| Das Bad liegt im 1. Stock."),
    (
        "fr",
        "Le contrat est conclu entre M. Roche et Mme Petit.| L'art. 12 al. 3 du Code civ. s'applique.| "
        "Voir p. 14 et suiv.",
    ),
    ("fr", "Il est né le 5 janv. 1890 à St. Malo.| La maison est fermée."),
    ("fr", "« Entrez. Asseyez-vous. » dit le notaire.| Elle partit.| — Où va-t-elle ?| — Chez Me Blanc."),
    ("fr", "Selon l'arrêt Cass. civ. 2e, 4 mars 2010, n° 09-12.345, le bail est nul.| Le preneur doit partir."),
    (
        "es",
        "La Sra. Ruiz vive en la Avda. América, núm. 14.| Véase la pág. 7 y el cap. IV del libro.| ¿Por qué?| ¡No sé!",
    ),
    ("es", "El Dr. Ortega trabajó en EE. UU. desde 1998.| Según el art. 1902 del C. C. debe pagar.| Nada más."),
    ("pt", "O Sr. Lopes mora na Av. Paulista, n.º 40.| Veja a pág. 9 e o art. 5.º da lei.| A Dra. Reis não veio."),
    (
        "it",
        "Il sig. Conti e la sig.ra Neri vivono in via Dante n. 8.| L'art. 2043 c.c. è chiaro.| "
        "Vedi pag. 12 e cap. III.",
    ),
    ("it", "Il dott. Serra è del III sec. a.C. oppure no.| Non si sa."),
    ("nl", "Dhr. Visser en mevr. De Boer wonen op nr. 14.| Zie art. 6 lid 2 en blz. 33.| Dat is bijv. Utrecht."),
    ("pl", "Ul. Długa ma nr. 5 i leży przy pl. Wolności.| Zob. art. 12 ust. 3 ustawy.| Prof. Nowak mieszka tam."),
    ("tr", "Prof. Demir 12. Mayıs 1950 tarihinde doğdu.| Bkz. Bölüm 3 ve s. 14.| Bu kadar."),
    ("sv", "Bron invigdes av t.ex. Anna och dr. Berg.| Se kap. 3 och s. 12.| Det är allt."),
    ("da", "Broen åbnede den 12. Maj 1911.| Se f.eks. Hansen og nr. 5.| Det er alt."),
    ("cs", "Most byl otevřen 12. května 1911.| Viz čl. 5 a str. 12, např. Novák.| To je vše."),
    (
        "ru",
        "Мост на ул. Ленина построен в 1911 г. инженером А. И. Орловым.| См. рис. 3 и стр. 12.| "
        "Он стоит, т. е. Москва его хранит.",
    ),
    ("uk", "Міст на вул. Шевченка збудовано в 1911 р. за проєктом.| Див. рис. 3 і ст. 12.| Він стоїть."),
    ("el", "Τι ώρα είναι;| Είναι πέντε.| Ο κ. Νίκου ζει στην οδ. Αθηνών, βλ. σελ. 12.| Αυτό είναι όλο."),
    ("hi", "डॉ. मेहता और श्री. वर्मा कल आए।| वे पृ. 12 पढ़ रहे थे।| क्या यह सच है?| हाँ!| देखिए।"),
    ("mr", "डॉ. पाटील आणि श्री. जोशी आले आहेत.| ते आता येथे आहेत."),
    ("ja", "「もう帰るの。」と母が聞いた。|「うん。」|父は黙っていた。|雨が降る．|そして夜になった。"),
    ("zh", "他问：“几点了？”|没有人回答。|《红楼梦》是一部小说。|你读过吗？"),
    ("ko", "네.| 알겠습니다.| 그는 3월 5일에 왔다."),
    ("ar", "من هو د. سامي؟| هو طبيب.| نعم، هذا صحيح."),
    (
        "en",
        "In Hart v. Lowe, 412 F.3d 77, the court cited 17 U.S.C. § 107 and Fed. R. Evid. 403.| It was affirmed.",
    ),
    (
        "en",
        "See Cal. Civ. Code § 1542 and Art. 5, No. 12.| Miller et al. (2004) agree with Fig. 2 and Eq. 7.| We do not.",
    ),
    ("en", "The Act of 12. Mai 1911 is German.| J. K. Alder wrote it.| He took vitamin C.| It helped."),
]


def units(text: str, language: str | None = None) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_sentences(text, language=language)]


@pytest.mark.parametrize(("language", "marked"), SENTENCES)
def test_sentences_of_a_named_language(language: str, marked: str) -> None:
    assert units(marked.replace("|", ""), language) == [part.strip() for part in marked.split("|")]


@pytest.mark.parametrize(("language", "marked"), SENTENCES)
def test_sentences_of_a_guessed_language(language: str, marked: str) -> None:
    text = marked.replace("|", "")
    assert guess_language(text) == language
    assert units(text) == [part.strip() for part in marked.split("|")]


@pytest.mark.parametrize(
    ("value", "code"),
    [("de", "de"), ("de-AT", "de"), ("pt_BR", "pt"), ("ZH-Hans", "zh"), ("deu", "de"), ("", None), (None, None)],
)
def test_a_language_by_its_tag(value: str | None, code: str | None) -> None:
    assert checked_language(value) == code


@pytest.mark.parametrize("value", ["german", "xx", "d", "de AT", "1", "de-", 3])
def test_an_unknown_language_is_refused_with_the_known_ones(value: str) -> None:
    with pytest.raises(
        InputError, match=r"language must be an ISO 639 code such as de or pt-BR, got .*known: am, ar, .*, zh"
    ):
        checked_language(value)
    with pytest.raises(InputError, match="language must be"):
        split_sentences("text", language=value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "12 34.5 %",
        "GET /index.html 200",
        "Lorem ipsum dolor sit amet consectetur",
        "x = foo(bar)",
        "Ωβ",
        "😀😀",
        "\ud800",
    ],
)
def test_a_text_that_tells_no_language(text: str) -> None:
    assert guess_language(text) in ("", "el")
    assert guess_language(text) == ("el" if text == "Ωβ" else "")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("สวัสดีครับ ผมชื่อสมชาย", "th"),
        ("این کتاب را برای او خریدم و به خانه رفتم", "fa"),
        ("שלום לכולם", "he"),
        ("বাংলা ভাষা", "bn"),
        ("일본은 日本이다", "ko"),
        ("東京は日本の首都です", "ja"),
        ("北京是中国的首都", "zh"),
        ("Podul a fost deschis în anul acesta și este foarte lung", "ro"),
        ("A híd 1911-ben nyílt meg, és nagyon hosszú", "hu"),
        ("Jembatan itu dibuka oleh raja dan tidak panjang", "id"),
        ("Silta on pitkä ja se oli vanha", "fi"),
        ("Cây cầu được mở vào năm 1911 và rất dài", "vi"),
    ],
)
def test_the_language_of_a_short_text(text: str, language: str) -> None:
    assert guess_language(text) == language


def test_the_function_words_of_every_language_guessed_are_of_a_language_named() -> None:
    assert all(function_words(code) for code in ("de", "fr", "es", "pt", "it", "nl", "pl", "ru", "tr", "hi"))
    assert function_words("xx") == function_words(None) == frozenset()
    assert list(LANGUAGES) == sorted(LANGUAGES)


def test_decomposed_accents_split_alike() -> None:
    import unicodedata

    text = "L’hôtel est fermé. Voir p. 12 et l’art. 3. À bientôt."
    apart = unicodedata.normalize("NFD", text)
    assert [unicodedata.normalize("NFC", unit) for unit in units(apart, "fr")] == units(text, "fr")
    assert len(units(text, "fr")) == 3


def test_many_abbreviations_take_linear_time() -> None:
    for piece in ("z. B. ", "Dr. ", "1. ", "« ", "„ ", "डॉ. ", "а. ", "; ", "§ 5 Abs. "):
        text = piece * 4_000
        assert sum(unit.end - unit.start for unit in split_sentences(text, language="de")) <= len(text)


def test_letters_of_part_numbers_are_no_words():
    rows = "".join(f'{{"part": "Z-{n}-4", "spare": "S-{n}", "next": "V_{n}.b"}}\n' for n in range(30))
    assert guess_language(rows) == ""
