"""What kind of thing a question asks for, where characters show whether a sentence has one: numbers, dates, contacts.

Only kinds that signs tell in any language: "when" and "how many" want a digit or a number in words, "call" a telephone
number, "e-mail" an address. By lists of question words, in some thirty languages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ctxprune.text.patterns import on_use

#: Words that ask at the beginning and join clauses elsewhere.
_WHEN = (
    r"(?:\A|[¿,.;])\W{0,3}(?:(?:and|since|until|till|by|from|in|et|depuis|jusqu['’]à|à partir de|y|desde|hasta|e|da"
    r"|fino a|até|de"
    r"|sinds|tot|vanaf|i|od|do|și|de|până|и|с|до)\s)?(?:when|quand|cuando|quando|wanneer|när|ile|kiedy|kdy|c[aâ]nd"
    r"|когда|коли)"
)
_NUMBER = (
    r"how (?:many|much|long|old|far|tall|high|large|big|wide|deep|heavy|fast|often)|what (?:percent\w*|number"
    r"|amount|share"
    r"|age|price|temperature|year|date|day|month|time|century)|(?:which|in which) (?:year|date|day|month|century)"
    r"|wie ?(?:viele?[mnr]?|hoch|lange?|alt|weit|groß|gross|breit|tief|schwer|schnell|oft|teuer)|wann"
    r"|in welche[mnr] (?:jahr|monat|jahrhundert)\w*|an welchem (?:tag|datum)|welche[mnrs]? (?:anzahl|betrag|datum"
    r"|preis)"
    r"|combien|(?:quel(?:le)?|quels|quelles) (?:année|date|jour|mois|siècle|nombre|pourcentage|prix|âge|taille)"
    r"|cu[aá]nt[oa]s?|cuándo|qu[eé] (?:año|fecha|d[ií]a|mes|siglo|porcentaje|n[uú]mero|edad)"
    r"|quant[oaie]s?|(?:che|quale|qual|que) (?:anno|ano|data|giorno|dia|mese|mês|secolo|século|percentuale|idade|età)"
    r"|hoe ?(?:veel|lang|oud|ver|groot|hoog|vaak|duur)|(?:welk|welke) (?:jaar|datum|dag|maand)"
    r"|hur (?:många|mycket|länge|gammal|stor|hög|långt)|hvor (?:mange|meget|mye|længe|lenge|gammel|stor)|hvornår"
    r"|vilket (?:år|datum)|hvilket (?:år|dato)|kuinka (?:monta|paljon|kauan|vanha)|milloin|minä vuonna"
    r"|ilu|(?:którym|jakim) (?:roku|dniu|miesiącu)|kolik|kter(?:ém|ý) (?:roce|rok|den)"
    r"|c[aâ]t(?:[aăeiî]|e)?|ce (?:an|dată|lună|procent)|în ce an|hány|mennyi|mikor|melyik évben"
    r"|сколько|скольки[хм]|скільки|(?:как(?:ом|ой)|як(?:ому|ий)) (?:году|год|веке|процент|році|рік)"
    r"|πόσ\w{1,3}|πότε|ποι[αο] (?:έτος|χρονιά|χρονολογία|ημερομηνία|ποσοστό)"
    r"|kaç(?:a|ı|ta|tan|ıncı|ar|tır)?|ne kadar|ne zaman|hangi (?:yıl\w{0,3}|tarih\w{0,3}|ay\w{0,2})"
    r"|كم|متى|(?:أي|اي) (?:عام|سنة|تاريخ|يوم|شهر|قرن)|כמה|מתי|באיזו שנה|چند|چه (?:سالی|زمانی|تاریخی)|کی"
    r"|कितन[ेाी]|कब|किस (?:वर्ष|साल|सन|तारीख|दिन)|কত|কখন|কবে|bao nhiêu|mấy|khi nào|năm nào|bao giờ|lúc nào"
    r"|berapa|kapan|tahun berapa"
)
_NUMBER_UNSPACED = (
    r"多少|几|幾|何[年月日時人個本回歳才度件枚台匹名倍割円分秒階番]|いつ|いくつ|いくら|どれ(?:くらい|ぐらい|だけ)|どの(?:くらい|ぐらい)"
    r"|什么时候|什麼時候|何时|何時|哪[一]?[年天月]|多[大久长長高远遠深重]|몇|얼마|언제|เท่าไ|กี่|เมื่อใด|เมื่อไ|ปีใด|ปีไหน|ວັນໃດ|ເທົ່າໃດ"
)
_PHONE = (
    r"(?:tele)?phone number|(?:can|do|should|to|must|could|may) (?:i|we|you|one) (?:call|ring|phone|dial)|hotline"
    r"|anrufen?|telefon\w*"
    r"|rufe ich|(?:numéro|joindre|appeler) (?:de téléphone|par téléphone)|(?:puis|peut|dois|peux)[- ](?:je|on"
    r"|nous) (?:appeler|joindre)"
    r"|(?:puedo|debo|tengo que|podemos) llamar|n[uú]mero de tel[eé]fono\w*|posso (?:chiamare|ligar)"
    r"|numero di telefono|bellen"
    r"|zadzwoni\w*|позвонить|номер телефона|τηλεφωνήσ\w*|τηλέφωνο"
    r"|رقم الهاتف|फ़ोन नंबर|số điện thoại|电话号码|電話番号|전화번호"
)
_MAIL = r"e-?mail\w*|courriel|correo electr[oó]nico|posta elettronica|adres e-mail|электронн\w+ почт\w+"
_WEB = r"web ?site|web ?seite|homepage|internetseite|url|site web|página web|sito(?: web)?|strona internetowa|сайт\w*"
_KINDS: Final = (
    (_PHONE, "", on_use(r"(?<![\d.,/-])(?:\+|\(?0)\d[\d\s()/.-]{4,}\d|\b\d{3,4}[ -]\d{3,4}(?:[ -]\d{3,4})?\b")),
    (_MAIL, "", on_use(r"[^\s@]{1,64}@[^\s@]{1,60}\.\w{2,}")),
    (
        _WEB,
        "",
        on_use(r"https?://|www\.|\b[\w-]{2,40}\.(?:com|org|net|edu|gov|info|io|de|fr|es|it|nl|pl|ru|eu|uk|jp|cn)\b"),
    ),
    (
        _NUMBER,
        _NUMBER_UNSPACED,
        on_use(
            r"\d|[一二三四五六七八九十百千万两兩零〇半]|(?<!\w)(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen"
            r"|twenty|thirty|hundred|thousand|million|half|once|twice|zwei|drei|vier|fünf|sechs|sieben|acht|neun"
            r"|zehn|elf|zwölf"
            r"|hundert|tausend|deux|trois|quatre|cinq|six|sept|huit|neuf|dix|cent|mille|dos|tres|cuatro|cinco|seis"
            r"|siete|ocho"
            r"|nueve|diez|cien|mil|due|tre|quattro|cinque|sei|sette|otto|nove|dieci|dwa|dwie|trzy|cztery|pięć|sześć"
            r"|дв[аеух]{1,2}|тр(?:и|ёх|ех)|четыр\w{1,3}|пят[ьи]|шест[ьи]|δύο|τρ[εί]\w{1,2}|τέσσερ\w{1,2}|πέντε|iki"
            r"|üç|dört|beş|altı"
            r"|doi|două|trei|patru|cinci|hai|ba|bốn|năm|sáu)(?!\w)|ثلاث|أربع|خمس|اثن|سبع|ثمان|تسع|عشر|مئة|ألف|مليون"
            r"|दो |तीन|चार|पाँच|पांच|छह|सात|आठ|नौ |दस |สอง|สาม|สี่|ห้า|หก|เจ็ด|แปด|เก้า|สิบ|ร้อย|พัน|ล้าน|두 |세 |네 |다섯|여섯",
            re.IGNORECASE,
        ),
    ),
)
_ASKS: Final = [
    on_use(
        rf"(?:(?<!\w)(?:{words}){f'|{_WHEN}' if unspaced else ''})(?!\w){f'|{unspaced}' if unspaced else ''}",
        re.IGNORECASE,
    )
    for words, unspaced, _ in _KINDS
]


def has_what_is_asked(question: str, texts: Sequence[str]) -> list[int]:
    """For each text 1 where it has what the question asks for, -1 where it has not, and 0 where that cannot be told."""
    for asks, (_, _, shows) in zip(_ASKS, _KINDS, strict=True):
        if asks.search(question):
            return [1 if shows.search(text) else -1 for text in texts]
    return [0] * len(texts)
