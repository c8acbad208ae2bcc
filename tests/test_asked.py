"""Whether a sentence has what a question asks for, where its characters show that: numbers, dates, contacts."""

import pytest

from ctxprune.text.asked import has_what_is_asked
from ctxprune.text.leaning import open_leaning


@pytest.mark.parametrize(
    ("question", "has", "has_not"),
    [
        ("How many bells hang in the tower?", "It holds 9 of them.", "It holds several of them."),
        ("Since when has the pier been shut?", "It was shut in 1962.", "It was shut by the council."),
        ("Which number can I call? Do I have to phone someone?", "Ms Abt: 0341 5550172.", "Ms Abt will help you."),
        ("What is the e-mail address of the office?", "Write to post@kiln.example.", "Write to the office."),
        ("Ab wann gilt der neue Tarif?", "Er gilt ab dem 1. Juli.", "Er gilt für alle Fahrten."),
        ("Wen kann ich anrufen?", "Herr Tauscher: 0341/555 01 72", "Herr Tauscher hilft Ihnen, Zimmer 12."),
        ("Wie hoch ist die Miete?", "Sie beträgt 640 Euro.", "Sie ist am Monatsanfang fällig."),
        ("Combien de temps dure la visite ?", "Elle dure 45 minutes.", "Elle dure longtemps."),
        ("¿Cuándo abre el museo?", "Abre a las 10:00.", "Abre todos los domingos."),
        ("Quanto costa il biglietto?", "Costa dodici euro, 8 per i bambini.", "Costa poco."),
        ("Ile osób mieszka we wsi?", "Mieszka tam 300 osób.", "Mieszkają tam rybacy."),
        ("В каком году построили мост?", "Его построили в 1907 году.", "Его построили жители."),
        ("كم عدد الغرف؟", "فيه 12 غرفة.", "فيه غرف كثيرة."),
        ("桥是什么时候建的？", "建于一九零七年。", "由村民建造。"),
        ("塔には鐘がいくつありますか。", "鐘が9つあります。", "鐘があります。"),
        ("Kaç oda var?", "Üç oda var.", "Odalar büyük."),
    ],
)
def test_a_sentence_shows_that_it_has_what_is_asked(question, has, has_not):
    assert has_what_is_asked(question, [has, has_not]) == [1, -1]


@pytest.mark.parametrize(
    "question",
    [
        "Who rang the bell?",
        "What did people call the bell when it broke?",
        "Qué ocurre cuando llueve?",
        "Wer läutet die Glocke?",
        "Vagon ile kim geldi?",
        "",
    ],
)
def test_other_questions_ask_for_nothing_that_characters_show(question):
    assert has_what_is_asked(question, ["In 1962.", "Nobody."]) == [0, 0]


def test_sentences_open_with_a_pronoun_of_their_language():
    assert open_leaning(["Er wurde 1902 gebaut.", "Der Turm ist hoch."], "de") == [True, False]
    assert open_leaning(["Он был построен позже.", "Башня высока."], "ru") == [True, False]
    assert open_leaning(["It was built later.", "The tower is high."], "") == [True, False]
