"""What a sentence begins with says, language by language, whether it means something said before it."""

from __future__ import annotations

import pytest

from ctxprune.text import split_sentences
from ctxprune.text.leaning import Leaning
from ctxprune.text.structure import structure

# A sentence that tells the language, one that leans on it, and one that does not.
SENTENCES = {
    "de": (
        "Der Müller hat die Schleuse am Abend für das Boot geöffnet.",
        "Danach fuhr das Boot.",
        "Das Wasser steigt.",
    ),
    "de again": ("Der Graben ist mit der Mühle und dem Teich verbunden.", "Dessen Ufer ist steil.", "Es gibt Fische."),
    "fr": ("Le meunier a ouvert la vanne pour le bateau dans la nuit.", "Celle-ci est en bois.", "Il faut payer."),
    "fr again": ("Le bateau est dans le port avec les autres.", "Pendant cette nuit, il pleut.", "Le quai est long."),
    "es": (
        "El molinero abrió la compuerta para el barco por la noche.",
        "Para abrirla hace falta fuerza.",
        "El agua sube.",
    ),
    "it": ("Il mugnaio ha aperto la chiusa per la barca nella notte.", "Essa è di legno.", "Il canale è lungo."),
    "pt": ("O moleiro abriu a comporta para o barco durante a noite.", "Por isso a água desceu.", "O canal é longo."),
    "nl": ("De molenaar heeft de sluis voor de boot in de nacht geopend.", "Die is van hout.", "Het water stijgt."),
    "pl": ("Młynarz otworzył śluzę dla łodzi, która była w nocy na rzece.", "Zamyka się ją rano.", "Woda jest zimna."),
    "ru": ("Мельник открыл шлюз для лодки, которая была на реке.", "После этого вода ушла.", "Канал длинный."),
    "tr": (
        "Değirmenci gece için bir tekne ve bir kapak açtı, ama çok geç oldu.",
        "Bunun için para aldı.",
        "Su soğuktur.",
    ),
    "el": (
        "Ο μυλωνάς άνοιξε την πύλη για το καράβι και για τους άλλους.",
        "Για αυτό πληρώθηκε.",
        "Το νερό είναι κρύο.",
    ),
    "ar": ("فتح الطحان بوابة القناة في الليل من أجل القارب.", "وبذلك هبط الماء.", "الماء بارد في الشتاء."),
    "hi": ("चक्की वाले ने रात में नाव के लिए फाटक खोला और फिर सो गया।", "इसके बाद पानी उतरा।", "पानी ठंडा है।"),
    "zh": ("磨坊主在夜里为船打开了水闸。", "因此水位下降了。", "运河很长。"),
    "ja": ("水車小屋の主人は夜に舟のために水門を開けました。", "そのため水が減りました。", "運河は長いです。"),
    "ko": ("방앗간 주인은 밤에 배를 위해 수문을 열었습니다.", "그 이후 물이 줄었습니다.", "운하는 깁니다."),
}


@pytest.mark.parametrize("language", SENTENCES)
def test_pronouns_and_connectives_of_a_language_lean(language):
    first, leaning, free = SENTENCES[language]
    text = f"{first} {leaning} {free}"
    roles = structure(text, split_sentences(text))
    assert [role.leans_on for role in roles] == [None, 0, None]


def test_an_article_of_another_language_leans_on_nothing():
    text = "Il canone si paga ogni mese alla società. Il porto è aperto anche di notte. Questo vale per tutti."
    assert [role.leans_on for role in structure(text, split_sentences(text))] == [None, None, 1]


def test_a_letter_that_says_you_with_a_capital_points_at_nobody():
    text = "Die Pumpe ist für Sie da. Ihnen entstehen keine Kosten. Sie erhalten eine Rechnung. Er wohnt hier."
    assert [role.leans_on for role in structure(text, split_sentences(text))] == [None, None, None, 2]


@pytest.mark.parametrize(
    "text", ["Ist das Tor zu? Rufen Sie den Wärter an.", "Is the gate shut? Ring the bell.", "门关了吗？ 请按铃。"]
)
def test_what_follows_a_question_leans_on_it(text):
    assert [role.leans_on for role in structure(text, split_sentences(text))] == [None, 0]


def test_what_a_page_says_of_itself_leans_on_nothing():
    leaning = Leaning(
        text := "Die Stadt kauft den Kanal und die Mühle. Diese Satzung gilt für alle. Diese Mühle ist alt."
    )
    assert [leaning.begins(text.index(word)) for word in ("Diese Satzung", "Diese Mühle")] == [False, True]


@pytest.mark.parametrize(
    ("above", "introduces"), [("No abra la compuerta", True), ("Öffnen Sie das Tor nicht", True), ("Es ist zu.", False)]
)
def test_a_sentence_that_goes_on_in_a_list_introduces_it(above: str, introduces: bool) -> None:
    text = f"Hier steht ein Satz. {above}\n- sin permiso\n- de noche\n"
    role = structure(text, split_sentences(text))[2]
    assert (role.leans_on, role.strength) == ((1, "needed") if introduces else (None, "helpful"))
