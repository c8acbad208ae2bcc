"""Name the language of a text from its script and its function words, or say that it cannot be told."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from ctxprune.errors import InputError

#: Characters looked at; more changes no guess and costs time.
_SAMPLE = 3000
#: Of the words of a text, those that must be function words of a language, and how far ahead of the next it must be.
_SHARE, _AHEAD = 0.12, 1.35

# Articles, pronouns, prepositions, conjunctions, auxiliaries and the adverbs that open sentences.
_FUNCTION_WORDS = {
    "en": (
        "a about after again against all also although an and any are as at be because been before being both but by "
        "can could did do does during each every few for from had has have he her here him his how however i if in "
        "into is it its many may me more most my no not now of on once one only or other our out over said she "
        "should since so some such than that the their them then there these they this those through to under until "
        "up was we were what when where which while who why will with would you your"
    ),
    "de": (
        "aber alle als also am an auch auf aus außerdem bei beim bereits bis bzw da dabei daher damals damit danach "
        "dann das dass dazu dem den denn der des deshalb die dies diese diesem diesen dieser dieses doch dort du "
        "durch ein eine einem einen einer eines er es für gegen hat hatte heute hier ich ihm ihn ihr ihre im in ist "
        "ja jede jeder jedoch kann kein keine man mehr mit nach nachdem nicht noch nun nur ob obwohl oder schon sehr "
        "sein seine seit seitdem sich sie sind so sondern sowie später über um und uns unter viele vom von vor war "
        "waren was weil wenn wer werden wie wir wird wurde wurden zu zum zur zwar zwischen"
    ),
    "fr": (
        "à afin ai alors après au aucun aussi autre aux avait avant avec avoir bien car ce cela celle celui ces cet "
        "cette chaque comme dans de depuis des dont du elle elles en encore enfin ensuite entre est et était étaient "
        "été être eu fut ici il ils je la le les leur leurs lors lorsque lui mais même moins ne nos notre nous on "
        "ont ou où par pas pendant peu peut plus pour pourquoi puis qu quand que quel quelle qui sa sans se selon "
        "ses si son sont sous sur tous tout toute toutefois très tu un une vers vos votre vous c' d' j' l' m' n' qu' "
        "s' y"
    ),
    "es": (
        "a además ahora al algo ante antes así aunque cada como con cuando cuál cuándo de del desde después donde "
        "dos durante e el él ella ellos en entonces entre era es esa ese eso esta está están este esto estos fue "
        "fueron ha había han hasta hay hoy la las le les lo los luego más me mi mientras muy ni no nos nosotros o "
        "otra otro para pero por porque pues que qué quien se según ser si sí sin sobre son su sus también tiene "
        "todo todos tras tu un una uno unos usted y ya yo"
    ),
    "pt": (
        "à ainda além ao aos após aquele aqui as às assim até cada com como contra da das de dela dele depois desde "
        "do dos e é ela elas ele eles em enquanto então entre era essa esse esta está este eu foi foram há isso isto "
        "já lhe mais mas mesmo muito na não nas nem no nos nós o onde os ou para pela pelas pelo pelos por porém "
        "porque quando que quem são se segundo sem ser seu seus sob sobre sua suas também tem ter toda todo todos um "
        "uma você"
    ),
    "it": (
        "a ad agli ai al alla alle allo allora anche ancora che chi ci ciò col come con contro cui da dagli dai dal "
        "dalla dalle degli dei del dell della delle dello di dopo dove due durante e è ed egli era erano essere fu "
        "furono già gli ha hanno i il in infatti inoltre io l la le lei lo loro lui ma mentre mi molto nei nel nella "
        "nelle nello no noi non o ogni ora per perché però più poi prima qual quale quando quanto quella quello "
        "questa questo qui quindi se secondo senza si sia sono sopra sua sue sui sul sulla suo suoi tra tutti tutto "
        "un una uno vi c' l' d' dell' all' nell' sull' dall' un'"
    ),
    "nl": (
        "aan al alle als altijd andere bij daar daarna dan dat de deze die dit door dus een en er ging had hebben "
        "heeft het hier hij hoe hun iets ik in is ja je kan kunnen maar me meer men met mijn moet na naar niet niets "
        "nog nu of om omdat ook op over sinds te tegen toen tot u uit van vanaf veel volgens voor waar want waren "
        "was wat we wel werd werden wie wij wordt ze zich zij zijn zo zonder zou"
    ),
    "pl": (
        "a aby ale albo bardzo bez był była było były być ci co czy dla do gdy gdzie go i ich ile im innych ja jak "
        "jako je jednak jego jej jest jeśli jeszcze już kiedy kto która które którego której który którzy lub ma "
        "mnie może na nad nie niego o od on ona one oni oraz po pod potem ponieważ przed przez przy są się tak także "
        "tam tego tej ten też to tu tych tylko tym u w we więc wszystko z za ze że"
    ),
    "tr": (
        "ama ancak ayrıca bazı ben bir biri biz bu bunu bunun çok çünkü da daha de değil diye en gibi hem hep her "
        "için ile ise kadar ki kim mi mı mu mü ne neden o olan olarak oldu olduğu onlar onu onun sen siz sonra şu "
        "tüm üzere var ve veya ya yok zaman"
    ),
    "sv": (
        "alla att av blev de dem den denna det detta du efter eller en ett för från hade han har hon hur i in inte "
        "jag kan kunde man med men mot mycket när nu och också om på så sedan sig sin skulle som till under upp ut "
        "var vad vi vid är över"
    ),
    "da": (
        "af alle at blev da de dem den der deres det dette du efter eller en er et for fra han har havde hun hvad "
        "hvor hvis i ikke ind jeg kan kunne man med meget men mod nu når og også om op over på sig sin skal som så "
        "til ud under var ved vi vil"
    ),
    "nb": (
        "alle at av ble da de dem den denne der deres det dette du eller en er et etter for fra han har hadde hun "
        "hva hvis hvor i ikke inn jeg kan kunne man med meget men mot nå når og også om opp over på seg sin skal som "
        "så til under ut var ved vi vil"
    ),
    "fi": (
        "ei eivät että hän he ja jo joka jos jotka kanssa koska kuin kun kuten me mikä minä mutta myös ne niin nyt "
        "ole oli olivat on ovat se sekä sen sillä sitä siitä tai tämä tässä vain"
    ),
    "cs": (
        "a aby ale ani až bez bude by byl byla byli bylo co do ho i jak jako je jeho její jen jsem jsou k kde když "
        "který která které mezi na nad ne nebo o od on po pod podle pro proto před při s se si tak také to ten tento "
        "této u už v ve však z za že"
    ),
    "ro": (
        "a acest această ai al ale am ar are au ca care către ce cea cei cel când cu cum da dar de deci din după ea "
        "ei el este eu fi fost iar în îi își la lui nu o pe pentru prin sau se și sunt un unei unui va"
    ),
    "hu": (
        "a az azt de egy el ez ezt én hogy ha is itt jól kell le lehet meg mert mi még mint most már nagyon nem ő "
        "pedig s sem szerint és után vagy van volt voltak"
    ),
    "id": (
        "ada adalah akan atau bahwa banyak beberapa bisa dalam dan dapat dari dengan di dia harus hari ini itu juga "
        "karena ke kepada lebih mereka oleh pada saya sebagai secara sudah telah tetapi tidak untuk yang"
    ),
    "vi": (
        "bị các cho có của cũng đã đến để đó được hoặc khi không là làm lại mà một nên này người những như nhưng ở "
        "ra rất sau sẽ tại theo thì trong từ và vào về với"
    ),
    "ru": (
        "а без более бы был была были было быть в вас вместе во вот все всех вы где да даже для до его ее её если "
        "есть ещё же за затем здесь и из или им их к как когда кто ко ли мы на над нам нас не него нет ни но о об "
        "однако он она они оно от по под поле после потом поэтому при с сейчас со так также там тем то того тоже "
        "только том ты у уже хотя чем что чтобы эта эти это этого этой этот я"
    ),
    "el": (
        "αλλά αν από αυτά αυτή αυτό αυτός για δεν δύο είναι είχε ένα ένας επίσης έχει έχουν η ή ήταν θα και κατά με "
        "μετά μια μας μη μην μόνο να ο οι όμως όπου όπως όταν ότι πολύ που προς πως σε σαν στα στη στην στις στο "
        "στον στους τα την της τι τις το τον του τους των ως"
    ),
    "hi": (
        "आप इन इस इसके ई उन उनके उस उसके एक ऐसे और कर करने कहा का कि किया किसी की के को कोई गया गई गए जब जा जो तक "
        "तथा तो था थी थे दिया नहीं ने पर पहले फिर बाद बहुत भी मैं में यदि यह यहाँ या ये रहा रहे लिए वह वहाँ वे सकते "
        "साथ से हम ही हुआ हुई है हैं हो होता"
    ),
    "mr": (
        "आणि आहे आहेत असे असून आता एक करून काही की च झाला झाली झाले तर ते तो त्या त्यांनी त्याच्या नाही पण मध्ये मी "
        "या ये व व्या हा ही हे होता होती होते"
    ),
    "ar": (
        "أن أو إلى إن التي الذي الذين بعد بين ثم حتى حيث على عن عند غير في قبل قد كان كانت كل كما لا لكن لم ما مع من "
        "منذ هذا هذه هل هو هي و وقد وكان ولا يكون"
    ),
    "fa": "آن از است اما این با بر برای به بود تا چه در را شد شده شود که می نیز و هر هم",
    "uk": (
        "а але без був була були було в вже від він вона вони воно для до за з зі і його їх її й коли ми на не ні "
        "про по при та так також те ти то у це цей ця що щоб що як який я"
    ),
}
# Letters that settle a guess among the languages of a script.
_TELLING = {
    "de": "ßẞ", "pl": "łŁśŚźŹżŻęĘąĄ", "es": "ñÑ¿¡", "pt": "ãÃõÕ", "tr": "ğĞşŞıİ", "cs": "řŘěĚůŮ", "hu": "őŐűŰ",
    "ro": "șȘțȚăĂ", "fr": "œŒçÇêÊùÙ", "vi": "ơƠưƯđĐ", "ru": "ыЫэЭъЪё", "uk": "іІїЇєЄґҐ", "fa": "پچژگ", "mr": "ळ",
}  # fmt: skip
#: First code point of a block, and the languages that are written in it; those with function words compete.
_SCRIPTS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (0x0000, ()), (0x0041, ("latin",)), (0x0250, ()), (0x0370, ("el",)), (0x0400, ("ru", "uk")), (0x0530, ("hy",)),
    (0x0590, ("he",)), (0x0600, ("ar", "fa")), (0x0700, ()), (0x0900, ("hi", "mr")), (0x0980, ("bn",)),
    (0x0A00, ("pa",)), (0x0A80, ("gu",)), (0x0B00, ("or",)), (0x0B80, ("ta",)), (0x0C00, ("te",)), (0x0C80, ("kn",)),
    (0x0D00, ("ml",)), (0x0D80, ("si",)), (0x0E00, ("th",)), (0x0E80, ("lo",)), (0x0F00, ("bo",)), (0x1000, ("my",)),
    (0x10A0, ("ka",)), (0x1100, ("ko",)), (0x1200, ("am",)), (0x1380, ()), (0x1780, ("km",)), (0x1800, ()),
    (0x1E00, ("latin",)), (0x1F00, ("el",)), (0x2000, ()), (0x3040, ("ja",)), (0x3100, ()), (0x3400, ("zh",)),
    (0xA000, ()), (0xAC00, ("ko",)), (0xD7B0, ()),
)  # fmt: skip
_STARTS = [start for start, _ in _SCRIPTS]
_LATIN = tuple(code for code in _FUNCTION_WORDS if code not in {"ru", "uk", "el", "hi", "mr", "ar", "fa"})
_WORDS = re.compile(
    r"(?:[cdjlmnst]|qu|dell|all|nell|sull|dall|un)['’](?=[^\W\d_])|(?:[^\W\d_][\u0300-\u036f\u0900-\u0903\u093a-\u094f\u064b-\u0652]*)+"
)
_CODE = re.compile(r"[a-z]{2,3}(?:[-_][a-z0-9]{1,8})*", re.IGNORECASE)

#: Part numbers, versions and the like, whose letters are no words: the K of "K-7".
_CODES = re.compile(r"[A-Za-z]{1,9}[-_.]?\d[A-Za-z0-9_.-]*")
_FUNCTION_SETS = {code: frozenset(words.split()) for code, words in _FUNCTION_WORDS.items()}
_WEIGHTS = {word: 1 / number for word, number in Counter(chain.from_iterable(_FUNCTION_SETS.values())).items()}
#: Written so alike that either serves for the other.
_NEIGHBOURS = {"da": ("da", "nb"), "nb": ("da", "nb")}
#: Languages that may be named, with function words, rules of abbreviation or a script of their own.
_LANGUAGE_CODES = (
    "am ar bg bn bo ca cs da de el en es et eu fa fi fr ga gl gu he hi hr hu hy id is it ja ka kk km kn ko lo lt lv "
    "mk ml mr ms mt my nb ne nl nn no or pa pl pt ro ru si sk sl sq sr sv sw ta te th tl tr uk ur uz vi zh"
)
LANGUAGES = tuple(_LANGUAGE_CODES.split())
_THREE_LETTERS = {
    "deu": "de", "ger": "de", "eng": "en", "fra": "fr", "fre": "fr", "spa": "es", "por": "pt", "ita": "it", "nld": "nl",
    "dut": "nl", "pol": "pl", "rus": "ru", "tur": "tr", "ell": "el", "gre": "el", "hin": "hi", "zho": "zh", "chi": "zh",
    "jpn": "ja", "ara": "ar", "kor": "ko",
}  # fmt: skip


def checked_language(language: str | None) -> str | None:
    """The ISO 639 code of "de", "de-AT", "pt_BR" or "zh-Hans"; None and "" mean that each text is looked at.

    Raises InputError that names the valid codes for anything else.
    """
    if language is None or language == "":
        return None
    code = re.split("[-_]", language)[0].lower() if isinstance(language, str) and _CODE.fullmatch(language) else ""
    code = _THREE_LETTERS.get(code, code)
    if code not in LANGUAGES:
        raise InputError(
            f"language must be an ISO 639 code such as de or pt-BR, got {language!r:.40}; "
            f"known: {', '.join(LANGUAGES)}; leave it out and each document's is guessed"
        )
    return code


def guess_language(text: str) -> str:
    """The ISO 639 code of the language that the beginning of `text` is written in, or "" where that is uncertain."""
    return _guess(text[:_SAMPLE])


@lru_cache(maxsize=512)  # a document is asked about where its sentences are split and where a model is chosen
def _guess(sample: str) -> str:
    if not sample.isascii():
        sample = unicodedata.normalize("NFC", sample)
    counts = Counter({"latin": 1}) if sample.isascii() else _letters(sample)
    if not counts:
        return ""
    if counts["ja"] * 20 >= counts["zh"] > 0:  # Japanese is written with both
        counts["ja"] += counts.pop("zh")
    codes, most = _most(counts)
    if most * 2 < sum(counts.values()):
        return ""
    candidates = _LATIN if codes == "latin" else _rivals(codes)
    return _by_words(sample, candidates) if len(candidates) > 1 else candidates[0]


def reads_as_english(question: str, documents: Sequence[str], language: str | None = None) -> bool:
    """Whether neither the question nor, in characters, a third of the documents is in another language.

    language: of the documents, where it is known. What cannot be told counts as English.
    """
    if _is_foreign(guess_language(question)):
        return False
    others = sum(len(text) for text in documents if _is_foreign(language or guess_language(text)))
    return 3 * others < sum(map(len, documents)) or not others


def _is_foreign(code: str) -> bool:
    return code.partition("-")[0] not in ("", "en")


def function_words(language: str | None) -> frozenset[str]:
    """The function words of a language, in lower case; empty where none are known."""
    return _FUNCTION_SETS.get(language or "", frozenset())


def _letters(sample: str) -> Counter[str]:
    """Letters of each script, under the first of its languages."""
    counts: Counter[str] = Counter()
    for character, number in Counter(sample).items():
        point = ord(character)
        if point < 0x41 or not character.isalpha():
            continue
        if codes := _SCRIPTS[bisect_right(_STARTS, point) - 1][1]:
            counts[codes[0]] += number
    return counts


def _most(counts: Counter[str]) -> tuple[str, int]:
    return counts.most_common(1)[0]


def _rivals(first: str) -> tuple[str, ...]:
    return next(codes for _, codes in _SCRIPTS if codes and codes[0] == first)


def _by_words(sample: str, candidates: tuple[str, ...]) -> str:
    words = Counter(_WORDS.findall(_CODES.sub(" ", sample).lower().replace("’", "'")))
    scores = {code: _score(words, sample, code) for code in candidates}
    best = max(candidates, key=lambda code: scores[code])
    second = max(score for code, score in scores.items() if code not in _NEIGHBOURS.get(best, (best,)))
    if candidates[0] not in _LATIN:  # the script has said most of it
        return best if scores[best] > second else candidates[0]
    hits = sum(words[word] for word in _FUNCTION_SETS[best] & words.keys()) + _telling(sample, best)
    enough = hits >= 2 and hits >= _SHARE * words.total()
    return best if enough and scores[best] >= _AHEAD * second else ""


def _score(words: Counter[str], sample: str, code: str) -> float:
    """How often function words of a language occur, those of few languages counting more, and letters that tell it."""
    score = sum(words[word] * _WEIGHTS[word] for word in _FUNCTION_SETS[code] & words.keys())
    return score + min(words.total() // 4 + 1, _telling(sample, code))


def _telling(sample: str, code: str) -> int:
    return 0 if sample.isascii() else sum(map(sample.count, _TELLING.get(code, "")))
