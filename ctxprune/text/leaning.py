"""Say whether a sentence means something said before it, by the pronouns and connectives of its language."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.language import guess_language
from ctxprune.text.patterns import on_use

_OPENING = r"[\"'“‘„«»‹¿¡「『(\[*_]{0,3}"
_ENGLISH = (
    r"However|Therefore|Thus|Hence|Moreover|Furthermore|Also|Instead|Otherwise|Then|Consequently"
    r"|Nevertheless|Nonetheless|Besides|Similarly|Likewise|In contrast|By contrast|In addition|As a result"
    r"|For example|For instance|That is|On the other hand|But|And|So|Yet|Still"
    r"|(?:In|For|At|After|Before|With|By|From|Under|Until|Without|Because of|Due to|Despite|Beyond|Above)"
    r" (?:this|that|these|those|such)(?=,| (?!section|chapter|article|paper|document|guide|manual|page|book)[a-z])"
    r"|If (?:so|not)|To do so|In (?:both|either|all) cases"
    r"|It|Its|He|She|They|His|Her|Their|This|These|That|Those|Such|Both|Neither|The (?:former|latter|same)|There"
)
_SELF_GERMAN = (
    r"(?! (?:Schreiben|Brief|Bescheid|Vertrag|Dokument|Abschnitt|Kapitel|Anleitung|Satzung|Gesetz|Jahr|Monat|Woche))"
)
_GERMAN = (
    r"Dagegen|Deshalb|Deswegen|Daher|Jedoch|Aber|Außerdem|Ausserdem|Zudem|Ferner|Ebenso|Ebenfalls|Trotzdem|Dennoch"
    r"|Allerdings|Stattdessen|Andernfalls|Ansonsten|Sonst|Folglich|Somit|Demnach|Infolgedessen|Hingegen|Vielmehr"
    r"|Daraufhin|Anschließend|Schließlich|Dann|Dort|Dorthin|Seitdem|Seither|Inzwischen|Gleichzeitig|Beispielsweise"
    r"|Zum Beispiel|Auch|So|Und|Oder|Doch|Denn|Bis da(?:hin|nn)|Im Übrigen"
    r"|Da(?:bei|durch|für|gegen|hinter|nach|neben|ran|rauf|raus|rin|rüber|rum|runter|von|vor|zu|zwischen)"
    r"|Damit (?=ist|sind|wird|werden|kann|können|hat|haben|gilt|entfällt|endet)"
    r"|Hier(?:auf|aus|bei|durch|für|über|von|zu)"
    r"|Er|Sie|Ihm|Ihn|Ihnen|Ihr(?:e[mnrs]?)?|Seine?[mnrs]?|Deren|Dessen|Jene[mnrs]?|Solche[mnrs]?|Beide[ns]?"
    r"|Letztere\w?|Erstere\w?|Die(?:se\w?|s|selben?)" + _SELF_GERMAN + r"|Der(?:jenige|selbe)|Dasselbe"
    r"|Es(?! (?:gibt|wird|werden|darf|dürfen|sind|folgt|handelt|ist (?:\w+ )?(?:möglich|nötig|verboten|wichtig"
    r"|erlaubt)))"
    r"|Das (?=ist|sind|war|gilt|wird|kann|können|heißt|bedeutet|führt|betrifft|hat|soll|muss|darf|geht)"
    r"|(?:Wer|Wenn Sie|Falls Sie|Werden|Wird|Ist|Sind) (?:sie|ihn|ihm)|In (?:beiden|allen|solchen) Fällen"
    r"|(?:An|Auf|Aus|Bei|Bis zu|Durch|Für|Gegen|In|Mit|Nach|Ohne|Seit|Über|Um|Unter|Von|Vor|Während|Wegen|Zu"
    r"|Zwischen)"
    r" (?:diese[mnrs]?|solche[mnr]?|jene[mnr]?|ih[mnr]|ihnen)" + _SELF_GERMAN
)
_FRENCH = (
    r"Cependant|Toutefois|Néanmoins|Pourtant|Donc|(?:Ainsi|Alors)(?! que)|Aussi|Mais|Et|Or|Car|Puis|Ensuite"
    r"|Enfin|Sinon|De plus"
    r"|En (?:outre|effet|revanche|conséquence)|Par (?:ailleurs|contre|conséquent|exemple)|Au contraire|Dès lors"
    r"|À défaut|A défaut|Le cas échéant|Au-delà|Auparavant|C['’]est|Cela|Ceci|Ça|Y|Les deux|Tous deux|Ce dernier"
    r"|Il(?! (?:faut|y a|est (?:\w+ )?(?:interdit|possible|nécessaire|conseillé|recommandé|obligatoire|important)))"
    r"|Elles?|Ils|Eux|Son|Sa|Ses|Leurs?|(?:Celui|Celle|Ceux|Celles)-(?:ci|là)"
    r"|(?:Ce|Cet|Cette|Ces)(?! (?:notice|contrat|document|lettre|courrier|page|règlement|guide|article|qui|que))"
    r"|Pour (?:cela|ce faire|y|les?) "
    r"|(?:À|A|Après|Avant|Avec|Au cours de|Au terme de|Contre|Dans|Depuis|Durant|En|Lors de"
    r"|Malgré|Outre|Par|Pendant|Pour|Sans|Selon|Sous|Sur) (?:cet?|cette|ces|cela|les deux|tous les"
    r"|(?:celui|celle|ceux)-ci)"
)
_SPANISH = (
    r"Sin embargo|Pero|(?:Además|Luego|Después)(?! de)|Asimismo|También|Tampoco|Así(?! como)|Entonces|Allí|Ahí"
    r"|Y|O|No obstante|Aun así"
    r"|Por (?:eso|ello|tanto|lo tanto|esto|consiguiente|el contrario|ejemplo)|De lo contrario|Lo mismo|L[ao]s que"
    r"|En (?:caso contrario|cambio|consecuencia|ambos casos|todos los casos)|Para \w{2,20}[aei]rl[aeo]s?"
    r"|Est[ae]s?|Estos?|Es[ao]s?|Esos|Ese|Aquel(?:l[ao]s?)?|Él|Ell[ao]s?|Dich[ao]s?|Amb[ao]s"
    r"|(?:A|Ante|Bajo|Con|Contra|De|Desde|Durante|En|Hasta|Para|Por|Según|Sin|Sobre|Tras)"
    r" (?:es[aeo]s?|esos|est[aeo]s?|estos|aquel\w{0,3}|dich[ao]s?|ell[ao]s?|él)"
)
_PORTUGUESE = (
    r"Porém|Mas|Contudo|Todavia|No entanto|Entretanto|Além disso|Assim(?! como)|Então|Depois(?! d| que)"
    r"|Portanto|Também|Ali|Aí|Lá|E|Ou"
    r"|Por (?:isso|exemplo|outro lado|conseguinte)|Para (?:isso|isto|tal|tanto)|Com isso|Caso contrário|Do contrário"
    r"|Isso|Isto|Aquilo|Ess[ae]s?|Est[ae]s?|Aquel[ae]s?|El[ae]s?|Amb[ao]s|[ND](?:ess|est|el)[ae]s?"
    r"|O mesmo|[OA]s que|Tal|Tais|Em (?:ambos|todos) os casos"
    r"|(?:A|Após|Com|Durante|Para|Por|Sem|Sob|Sobre) (?:ess[ae]s?|est[ae]s?|el[ae]s?|tal|tais)"
)
_ITALIAN = (
    r"Tuttavia|Però|Ma|Inoltre|Perciò|Pertanto|Quindi|Dunque|Così|Infatti|Invece|Anche|Poi|Dopodiché|Altrimenti|E|O"
    r"|Oppure|Lì|Là|Ivi|In (?:questo|quel|tal|entrambi|tutti i|caso contrario)|A (?:tal fine|questo scopo)"
    r"|Di conseguenza|Per (?:questo|ciò|esempio|\w{2,20}[aei]rl[aeio])|Ess[aeio]|Egli|Ella|Ciò|Tal[ei]"
    r"|Quest(?:[aeio]|['’])"
    r"|Quell[aeio]|Quel|Quei|Su[ao]|Suoi|Sue|Loro|Entramb[ei]|Lo stesso|Trascors[aeio] tal[ei]"
    r"|(?:Con|Da|Di|Dopo|Durante|Entro|Oltre|Prima di|Senza|Su) (?:quest\w{1,2}|tal[ei]|ess[aeio]|ciò)"
)
_DUTCH = (
    r"Echter|Maar|Bovendien|Daarom|Dus|Ook|Toch|Anders|Dan|Vervolgens|Tot (?:slot|die tijd)|Zo|En|Of|Want|Beide"
    r"|Daar(?:aan|bij|door|in|mee|na|naast|om|onder|op|over|toe|van|voor)?"
    r"|Hier(?:aan|bij|door|in|mee|na|op|over|toe|van|voor)"
    r"|Hij|Zij|Ze|Dit|Dat|Die|Deze(?! (?:brief|folder|handleiding|overeenkomst|pagina))|Haar|Hun"
    r"|Zijn(?! (?:er|de|het|uw))"
    r"|Het (?=is|wordt|was|moet|kan|mag|heeft|gaat|werd|zal|duurt|kost|geldt|komt)"
    r"|(?:Aan|Bij|Binnen|Door|In|Met|Na|Onder|Op|Over|Sinds|Tijdens|Tot|Van|Vanaf|Voor|Zonder)"
    r" (?:dat|dit|die|deze|hem|haar|hen|beide)(?! (?:brief|folder|handleiding|pagina))"
)
_POLISH = (
    r"Jednak(?:że)?|Ale|Lecz|Natomiast|Ponadto|Dlatego|Zatem|Więc|Poza tym|Wtedy|Wówczas|Następnie|Potem"
    r"|Również|Także"
    r"|Też|Tam|Stąd|Dzięki temu|Mimo to|W przeciwnym razie|Na przykład|I|A|Oba|Obie|Obaj|Taki\w{0,2}|Taka|Tacy"
    r"|W (?:takim|tym|tych|takich|obu) |(?:Bez|Dla|Do|Na|Nad|O|Od|Po|Pod|Podczas|Przed|Przez|Przy|Za|Z)"
    r" (?:tego|tej|tym|tych|to|tę|ten|nich|niego|niej|nim)|On[aoei]?|Jego|Jej|Ich|Ten|Ta|To|Ci|Te|Tego|Tej|Tych|Tym"
    r"|[^\W\d_]{3,20} (?:się )?(?:on[aoei]?|ją|je|go)"
)
_RUSSIAN = (
    r"Однако|Но|Поэтому|Кроме того|Также|Тогда|Затем|Потом|Таким образом|Следовательно|Иначе|В противном случае"
    r"|Например"
    r"|И|А|Он[аои]?|Его|Её|Ее|Их|Эт(?:от|а|о|и|ого|ой|их|ому|им)|Тот|Та|Те|Так(?:ой|ая|ие|ое)|Там|Туда|Оба|Обе"
    r"|(?:Без|В|В течение|Во время|Для|До|За|Из-за|К|На|О|Об|От|По|Под|После|При|С|Со)"
    r" (?:эт\w{1,3}|так\w{2}|тех|того|той|тому|том|него|неё|нее|них|ним|нём)"
)
_TURKISH = (
    r"Ancak|Fakat|Ama|Ayrıca|Böylece|Aksi (?:halde|takdirde)|Daha sonra|Sonra|Örneğin|Orada|Ve|Şu|O"
    r"|On(?:lar\w{0,4}|u|un)"
    r"|Bu(?:n(?:lar\w{0,5}|un|a|u|da|dan)?)?(?! (?:sözleşme|belge|mektup|kılavuz))"
)
_GREEK = (
    r"Όμως|Αλλά|Ωστόσο|Επίσης|Επομένως|Έτσι|Διαφορετικά|Τότε|Μετά(?=,)|Έπειτα|Γι['’] ?αυτό|Εκεί\w{0,3}|Και|Αυτ\w{1,3}"
    r"|(?:Σε|Για|Από|Με|Μετά από) αυτ\w{1,3}"
)
_ARABIC = (
    r"و?(?:لكن|لذلك|بذلك|بهذا|هذا|هذه|ذلك|تلك|هو|هي|هم|عندها|هناك)|ثم|كما|أيضًا|أيضا|بالإضافة إلى ذلك|و?في هذه الحالة"
)
_HINDI = (
    r"(?:यह|ये|वह|वे|लेकिन|परंतु|परन्तु|किंतु|और|तथा|इसलिए|अतः|फिर|तब|वहाँ|ऐस[ेीा]|साथ ही"
    r"|[इउ](?:स|न)[\u0900-\u0963]{0,6})(?=[\s,])"
)
_CHINESE = (
    r"但|然而|因此|所以|此外|另外|同时|而且|并且"
    r"|其(?!他|实|它)|它|他|她|这|那|该|此(?!致)|否则|然后|随后|接着|于是|不过|例如|届时"
)
_JAPANESE = (
    r"しかし|ただし|そ(?:の(?!他|ほか)|れ|こ|して|うすると)|こ(?:の|れ|こ|ちら)|また|さらに|なお|したがって|よって|だから|例えば|たとえば|一方"
    r"|彼|すると|つまり|ところが|でも"
)
_KOREAN = (
    r"(?:그러나|하지만|그런데|그리고|그래서|따라서|또한?|이|그|이것|그것|이는|이를|이에|그는|이때|그때|그러면|다만|단"
    r"|예를 들어|[이그]러한|이런|그런|여기|거기)(?=[\s,])|[이그]것[\uac00-\ud7a3]|그녀"
)
#: Where the language is unknown, or has no words here.
_ANY = (
    r"Dagegen|Deshalb|Daher|Jedoch|Aber|Außerdem|In (?:dies|solch)e[mnr]|Dabei|Dadurch|Hierzu|Andernfalls"
    r"|Er|Sie|Es|Dies\w{0,2}|Ihr\w{0,2}|Cependant|Donc|Mais|Dans ce(?:tte|s)?|Au-delà|Sinon|Il|Elle|Ils|Elles"
    r"|Ce|Cette|Ces"
    r"|Sin embargo|Pero|En es[ate]|Además|Él|Ella|Ellos|Esto|Esta|Este|In (?:questo|quel) caso"
    r"|W (?:takim|tym) przypadku"
)
_SPACED = {
    "en": _ENGLISH, "de": _GERMAN, "fr": _FRENCH, "es": _SPANISH, "pt": _PORTUGUESE, "it": _ITALIAN, "nl": _DUTCH,
    "pl": _POLISH, "ru": _RUSSIAN, "tr": _TURKISH, "el": _GREEK, "ar": _ARABIC,
    "": f"{_ENGLISH}|{_ANY}",
}  # fmt: skip
_UNSPACED = {"hi": _HINDI, "zh": _CHINESE, "ja": _JAPANESE, "ko": _KOREAN}
_LEANS = {
    **{code: on_use(rf"{_OPENING}(?:{words})\b") for code, words in _SPACED.items()},
    **{code: on_use(rf"{_OPENING}(?:{words})") for code, words in _UNSPACED.items()},
}
#: "We reject that claim.": short, and about something said before.
_REFERS = re.compile(r"\b(?:this|that|these|those|dies\w{0,2})\s+[^\W\d_]{2,20}[.!]\W{0,3}\Z")
_SHORT = 60  # characters
#: German letters write "you" with a capital within a sentence; there a capital "Sie" or "Ihr" points at nobody before.
_ADDRESSED = re.compile(r"[\w,] (?:Sie|Ihnen|Ihr(?:e[mnrs]?)?)\b")
_YOU = re.compile(_OPENING + r"(?:Sie|Ihnen|Ihr\w{0,2})\b")
#: What a question is followed by is its answer, or says what to do if so.
_ASKED = re.compile(r"[?？؟][\"'”’»)\]*_]{0,3}\s{1,3}\Z")


class Leaning:
    """Tells for the sentences of `text`, whose language is guessed, whether they mean what was said before them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._leans = _LEANS.get(guess_language(text), _LEANS[""])
        self._addressed = _ADDRESSED.search(text) is not None

    def begins(self, start: int) -> bool:
        """Whether what begins at `start` opens with a pronoun or connective, or follows a question."""
        if _ASKED.search(self._text, max(0, start - 8), start):
            return True
        if self._addressed and _YOU.match(self._text, start):
            return False
        return self._leans.match(self._text, start) is not None

    def refers(self, start: int, end: int) -> bool:
        """Whether a short sentence ends with a pronoun and its noun."""
        return end - start <= _SHORT and _REFERS.search(self._text[start:end]) is not None


def open_leaning(texts: Sequence[str], language: str) -> list[bool]:
    """For each text, whether it opens with a pronoun or connective of its language; "" where that is not known."""
    leans = _LEANS.get(language, _LEANS[""])
    return [leans.match(text) is not None for text in texts]
