"""Letters, notices and rules in other languages: enumerations, greetings, hours and what somebody says."""

from __future__ import annotations

import pytest
from test_units import assert_split


@pytest.mark.parametrize(
    "marked",
    [
        "水车的规则如下。¶\n1．每天七点开门；¶\n2．晚上不开。¶",
        "水车的规则¶\n一、开放时间¶\n二、费用¶",
        "水車の規則です。¶\n・朝は七時からです¶\n・夜は休みです¶",
        "規則である。¶\n第1条　門は朝に開く。¶\n第2条　夜は閉じる。¶",
        "水深3．5米。¶“门关了。”¶",
        "他到了。¶“门关了。¶我们等。”¶",
    ],
)
def test_enumerations_and_speech_of_east_asia(marked: str) -> None:
    assert_split(marked)


@pytest.mark.parametrize(
    "marked",
    [
        "M. Brun ouvre la porte à 7 h. 30 et la ferme le soir.¶ Il attend.¶",
        "Brama działa od dn. 3 maja na mocy uchwały rady.¶ Kim czeka.¶",
        "La signora abita in via Roma, 7. La porta è chiusa.¶".replace("7. ", "7.¶ "),
        "The keeper lives in Mill Lane, 7. The gate is shut.¶".replace("7. ", "7.¶ "),
        "Do this, 1. open the gate, 2. Let the boat in, and 3. Close it.¶",
    ],
)
def test_numbers_beside_full_stops(marked: str) -> None:
    assert_split(marked)


def test_a_greeting_stands_apart_from_the_letter_that_goes_on_in_small_letters() -> None:
    assert_split(
        "Sehr geehrte Frau Bell,¶\n\nhiermit teilen wir Ihnen mit, dass die Schleuse im Mai geschlossen bleibt.¶\n\n"
        "Bitte fahren Sie in dieser Zeit über den alten Kanal, der im Norden liegt.¶\n\n"
        "Das Boot von Frau Holt liegt dort schon seit einigen Tagen.¶\n\nMit freundlichen Grüßen¶\n\nKim Ott¶"
    )


@pytest.mark.parametrize(
    "marked",
    [
        "Die Wunde heilte am 3. postop. Tag, und die dt. Kollegen gaben eine schriftl. Auskunft.¶\n\ngez. Holm¶",
        "In der Sache Holm ./. Reederei Nord wird der Zeuge gehört.¶ Er kommt.¶",
        "Unter Tel. +49 30 1234 erfährt man die Kundennr. 71 und die Adresse, die Uferstr. 8 in Kiel.¶ Er wartet.¶",
        "Der Balken ist 9 mm.¶ Die Schleuse ist dicht.¶",
        "Il canone è dovuto ai sensi dell'art. 9 c.c.¶ Scaduto il termine, resta chiusa tre ore.¶ Poi chiude.¶",
        "La barca è della società e ha il C.F. A-77 presso l'Uff. Porto.¶ Non parte mai.¶ Resta qui.¶",
        "El barco tiene el N.I.F. A-880 y consta en el libro 3, f. 12 del puerto.¶ No sale.¶",
        "Przystań działa dla wszystkich od 1 maja 2021 r.¶ Opłata jest stała.¶ W 2021 r. Kowal kupił łódź od p. Ewy.¶",
        "Шлюз работает для всех судов с 1 мая 2021 г.¶ Плата составляет два рубля.¶ В 2021 г. Иванов купил лодку.¶",
        "Pacjent codziennie bierze lek.¶ Potem czeka na lekarza.¶",
        "Krok 1. Otwórz bramę.¶\nKrok 2. Wpuść łódź.¶",
        "- 1 c. à s. de miel¶\n- 2 œufs¶",
        "The lock is up.¶ Then it went down.¶",
    ],
)
def test_full_stops_of_letters_and_bills(marked: str) -> None:
    assert_split(marked)
