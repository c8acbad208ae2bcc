"""The abbreviations, ordinals and dates of each language: which full stops end no sentence.

`sentencex` has lists of its own for most of these languages; what stands here is what it lacks or has wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from ctxprune.text.language import function_words

# Never the last word of a sentence: titles, "for example", and what else wants a word after it.
_LEADING = {
    "en": (
        "adm brig capt cmdr col dr fed gen gov hon insp lt maj messrs mr mrs ms msgr mt pres prof rep rev sen sgt st "
        "supt"
    ),
    "de": (
        "allg amtl anschl apl.prof ausschl bayer bes betr betriebl bspw bzgl bzw ca chem d.h dipl dipl.-ing dr dres "
        "dt durchschn ehem einschl entspr etw ev evang evtl exkl fam fr frz geb gem gen geschäftl gesetzl gest gez "
        "ggf ggfs griech hl hr hrn i.a i.d.f i.d.r i.e i.h.v i.s i.s.d i.s.v i.v.m ing inh inkl insb insbes ital jur "
        "jährl kath kfm lt m.a.w m.e max med mind monatl mr mtl mündl nat o.g phil poln postop ppa priv priv.-doz "
        "prof präop rer russ röm s.o s.u schriftl sog st staatl stellv stv städt techn telef türk u.u urspr v.a verf "
        "verh versch verst vgl vorm wiss wöchentl württ z.b z.hd z.t z.zt zit zul zust zw zzgl ärztl öffentl übl"
    ),
    "fr": "apr av c.-à-d c.à.d cf dr env ex mgr mlle mlles mm mme mmes me p.ex pr st ste vve",
    "es": (
        "admón aprox av avda cfr cnel ctra d dr dra dña ej excmo fr gral ilmo ing lic mons p.ej prof profa sgto sr "
        "sra sres srta sta sto ud uds vd vds"
    ),
    "pt": (
        "aprox apto arq av cel cfr cons d dr dra drs eng exma exmo hosp ilma ilmo p.ex prof profa r sr sra sres srs "
        "srta sta sto trav v.g"
    ),
    "it": (
        "all arch avv cav cfr comm dott dott.ssa es gent geom ing mons on p.es prof prof.ssa prot rag resp rev "
        "sig sig.na sig.ra sigg spett uff"
    ),
    "nl": (
        "afd bijv bv ca contactpers d.w.z dhr dr drs excl fam i.c i.p.v i.v.m incl ing ir jhr m.b.t m.i.v mevr mr mw "
        "n.a.v o.a o.b.v prof ref resp st t.a.v t.b.v t.o.v v.d zgn"
    ),
    "pl": (
        "abp adw al bp dr ds dyr gen hab im inż kpt ks m.in mgr min np ok os p pl por prof ps płk red sz tj tzn "
        "tzw ul up wyd zob św"
    ),
    "tr": "alb av bkz bn cad doç dr hz mah müh op ord öğr örn prof sn sok uzm yrd",
    "sv": "bl.a ca d.v.s dr dvs ev f.d fr hr inkl jfr prof resp s.k st t.ex t.o.m",
    "da": "ang bl.a ca dr dvs evt f.eks fr hr inkl jf jfr kgl mht pga prof sml ved",
    "nb": "bl.a ca dr dvs evt f.eks fr hr inkl jf jfr mht pga prof",
    "cs": "bc čl doc dr ing mgr mudr např phdr prof resp sv tj tzn tzv",
    "ro": "av bd cca dl dlui dna dr dra ex prof str",
    "hu": "dr id ifj ill kb özv pl prof ún",
    "vi": "bs gs pgs q tp ths ts tx",
    "id": "dr drs hj ir jl no prof sdr tn ny yth",
    "ru": (
        "акад англ вкл г-жа г-н гр доц им ин изд кн лат напр нем ост пл пос пр просп проф св см ср т.е т.к тел тов ул "
        "устар"
    ),
    "uk": "акад вул див доц ім напр пл пр просп проф св тел тобто",
    "el": "αγ βλ δηλ δρ καθ κ κα κες κκ κος κυρ λ.χ λεωφ οδ π.χ πλ πρβλ τηλ",
    "hi": "इं कु डॉ डा पं प्रो मो श्री श्रीमती सुश्री स्व",
    "mr": "कु डॉ प्रा मो श्री सौ स्व",
}
# No end before a number, a section sign, a single letter or an abbreviation: what is counted or cited.
_NUMBERED = {
    "en": (
        "am ann app art arts bk ch cir cl cls col cols ct ed eq eqn eqs ex fig figs no nos nr p para paras pp pt pts "
        "r ref refs reg regs rr s sch sec secs sect ser ss stat supp suppl tab tel v ver vol vols chap lib mon thu tue"
    ),
    "de": (
        "abb abs abschn alt anh anl anm art aufl az bd bde beschl bl buchst bsp diss ff fn gl h hs jg kap lfd lit m "
        "nr nrn pkt pos randnr rdn rdnr rn rnr rz s satz sp ss st std str sz tab tel teilbd tz u uabs unterabs urt "
        "verz vol ziff"
    ),
    "fr": (
        "al ann art arts bull c ch chap coll d éd fasc fig h l liv n no nos p par paragr pp r réf s t tab tél titr v "
        "vol"
    ),
    "es": (
        "apdo apdos art arts cap caps cf dpto ed exp f fasc fig figs fol fs inc km lib lit n nro nros núm núms p pol "
        "pp pág págs párr reg s sec ss t tab tel tlf tom tít vol vols"
    ),
    "pt": (
        "al ap art arts cap caps fig figs fl fls inc km liv n nr num nº p par pp proc pág págs q rel s sec séc "
        "t tab tel tít vol vols"
    ),
    "it": (
        "art artt c cap capp cass co cod d.l d.lgs d.p.r doc fasc fg fig figg int l lett lit mapp n nn nr ord p pag "
        "pagg par parr pp punt r.d s sent sez ss sub t tab tel tit vol voll"
    ),
    "nl": "afb afd art artt bijl blz dl fig hfdst jg k.b lid nr nrs p pag par pp r.o rov sub tab tel vol",
    "pl": (
        "art cz dn godz gru kw lip lis lit lok lut m mar nr par paź pkt pow poz r rozdz rys s sier st str sty sygn t "
        "tab tel tom ust w wrz ww z zał"
    ),
    "tr": "böl bs c d f haz kat m md mh no nr s sf sy şek tel y",
    "sv": "art bil fig kap kl mom nr p s sid st stk str tab tel",
    "da": "art fig kap kl litra nr pkt s st stk tab tlf",
    "nb": "art fig kap kl nr pkt s st tab tlf",
    "cs": "č čís čl kap obr odst písm r s str sv tab tel",
    "ro": "alin art cap fig lit nr p pag pct tab vol",
    "hu": "bek ker ld o old sz",
    "id": "hlm no pasal tel",
    "ru": "абз вып гл д изд кв корп л лит гг гост оф п пп подп прил ред рис разд с см ст стр т табл тел тт ч эт",
    "uk": "абз гл п пп рис розд с ст стор т табл тел ч",
    "el": "αρ άρθρ αριθ εδ εικ κεφ ν π.δ παρ περ πίν σελ τ τηλ τόμ υ.α",
    "hi": "अ क्र क्रं पृ सं",
    "mr": "क्र पृ",
}
# Stand at the end of a sentence as well as within; an end only before a word that opens sentences.
_TRAILING = {
    "de": "ag c co etc f ff gmbh jh jhd jhdt jr mio mrd n.chr o.ä std str tsd u.a u.ä u.v.m usf usw v.chr z.z",
    "fr": "av.j.-c ap.j.-c bd cie div ets éts etc janv févr avr juil sept oct nov déc cass civ crim soc com règl",
    "es": "a.c aa cía d.c ee etc ff hh uu rr s.a s.l ss mm ene feb abr jun jul ago sept oct nov dic",
    "pt": "a.c cia d.c etc ltda s.a jan fev mar abr jun jul ago set out nov dez",
    "it": "a.c civ cod cost d.c ecc etc pen proc s.a.s s.n.c s.p.a s.r.l seg segg genn febbr sett ott nov dic",
    "nl": "b.v c.s e.a e.d e.v enz etc jr n.v sr",
    "pl": "a.d etc ha itd itp jr k.c k.k k.p.c mld mln n.e p.n.e r sp sp.j tys w z.o.o",
    "tr": "alm as çev ing lat ltd m.ö m.s san şti tic vb vd vs yay yy",
    "sv": "etc f.kr e.kr m.fl m.m o.d o.s.v osv kr",
    "da": "etc f.kr e.kr m.fl m.m m.v mv o.l osv kr",
    "nb": "etc f.kr e.kr m.fl m.m mv o.l osv kr",
    "cs": "a.s apod atd atp mil mld n.l př.n.l r s.r.o stol tis",
    "ro": "etc ș.a",
    "hu": "sz stb",
    "ru": "б в вв г гг долл др до.н.э км коп кор млн млрд мин н.э обл пр проч р р-н руб с см т т.д т.п тыс ч чел",
    "uk": "в вв грн ін млн млрд н.е р рр с т.д т.п тис",
    "el": "αι κ.α κ.ά κ.λπ κ.τ.λ κλπ κτλ μ.χ π.μ μ.μ χλμ",
    "hi": "ई ई.पू कि.मी मी रु",
}
#: As those above, but what goes on after them with a capital is a sentence: nouns have none in these languages.
_CLOSING = {"it": "c.c c.m c.p c.p.c c.p.p p.v s.m u.s", "pl": "k.c k.k k.p.a k.p.c br"}
#: Words that `sentencex` takes for abbreviations, which they are before a number at most.
_ORDINARY = {
    "de": "may mm no re",
    "it": "app mai mm ore pc re su va via è",
    "nl": "bel pan u volg",
    "pl": "lek",
    "es": "contra mg",
    "pt": "é",
}
#: Compounds that end in an abbreviation, before their number: "Lindenstr. 4", "Kundennr. 10".
_COMPOUND = re.compile(r"[^\W\d_]{3,}(?:str|nr)\Z", re.IGNORECASE)
_ROMAN = re.compile(r"[IVXLC]{1,7}")
_MONTHS = (
    "jan jän january januar jänner janvier janeiro enero gennaio januari january ocak ianuarie feb february februar "
    "februari février fevereiro febrero febbraio şubat mar mrz march märz mars março marzo maart mart april avril "
    "abril aprile nisan may mai mayo maio maggio mei maj mayıs june juni juin junio junho giugno haziran july juli "
    "juillet julio julho luglio temmuz aug august août agosto augustus augusti ağustos sep sept september septembre "
    "septiembre setembro settembre eylül oct okt october oktober octobre octubre outubro ottobre ekim nov november "
    "novembre noviembre novembro kasım dec dez december dezember décembre diciembre dezembro dicembre desember "
    "aralık января февраля марта апреля мая июня июля августа сентября октября ноября декабря"
)
MONTHS = frozenset(_MONTHS.split())
_ENGLISH_MONTHS_WORDS = "january february march april may june july august september october november december"
_ENGLISH_MONTHS = frozenset(_ENGLISH_MONTHS_WORDS.split())
#: Languages that write "the 12th" as "12.", and nouns that such a number counts where no article stands before it.
_ORDINAL_WORDS = "de da nb sv fi cs sk pl hu hr sr sl et lv lt tr is"
_ORDINAL = frozenset(_ORDINAL_WORDS.split())
_COUNTED_WORDS = (
    "abschnitt akt armee auflage ausgabe band bataillon bezirk division dynastie etage gebot geburtstag geschoss "
    "jahr jahrestag jahrgang jahrhundert jahrhunderts jahrhunderten jh jhd kammer kapitel klasse lebensjahr "
    "legislaturperiode mal obergeschoss platz runde satz semester senat sinfonie sitzung spieltag stock strafsenat "
    "symphonie tag teil wahlperiode weltkrieg weltkriegs zivilsenat yüzyıl yüzyılda yüzyılın madde maddesi století "
    "wiek wieku"
)
_COUNTED = frozenset(_COUNTED_WORDS.split())
# Before a name these are words of their own in some other language, so they say nothing where the language is unknown.
_AMBIGUOUS_WORDS = (
    "a al all allg as av bayer bes bn chem col cons d do es ev ex f fam fed fr gem gen im in ing ir it ital jl jur lic "
    "m max me med min mm mr mt no od on op os p pen pl por pr priv r red ref rep resp sen sp st std tech techn u up "
    "ved verf w z zw"
)
_AMBIGUOUS = frozenset(_AMBIGUOUS_WORDS.split())
# Case reporters, codes and courts of English citations, each before a capital or a number.
_LEGAL_WORDS = (
    "adv admin aff am ann app bankr cal cert cir civ cl cmwlth comm comp cong cons const corp crim ct del dist div "
    "ed evid fed fla ga gen id ill ind inc infra int'l jud juv l.ed lab laws ltd mass mich minn misc n.e nat'l n.w "
    "n.y ohio op pa pet proc prob pub r rec reg regs rev rptr s.ct s.e s.w sess so stat super supp supra tenn tex "
    "tit trans treas univ u.s u.s.c u.s.c.a va vt wash wis"
)
LEGAL = frozenset(_LEGAL_WORDS.split())
_CHAIN = re.compile(r"(?:[^\W\d_]{1,4}[\u0300-\u036f\u0900-\u0903\u093a-\u094f]*\.[ -]?)+[^\W\d_]{1,5}\Z")
_SHORT_CHAIN = re.compile(r"(?:[^\W\d_]\.[ -]?)+[^\W\d_]|(?:[^\W\d_]{1,3}\.)+[^\W\d_]{1,4}")  # "z. B.", "d. C.", "Kr.f"
_DATE_ON = re.compile(r"\s*\d{1,2}\.\s*\d{2,4}\b")
_DATE_BEFORE = re.compile(r"(?<!\d)\d{1,2}\.\s*\d{1,2}\Z")
_SPACES = re.compile(r"[\s\u00a0]+")


@cache
def _table(kind: str, language: str) -> frozenset[str]:
    tables: Mapping[str, Mapping[str, str]] = {"leading": _LEADING, "numbered": _NUMBERED, "trailing": _TRAILING}
    if language:
        return frozenset(tables[kind].get(language, "").split())
    words = frozenset(word for row in tables[kind].values() for word in row.split())
    return (
        words
        if kind == "numbered"
        else frozenset(word for word in words - _AMBIGUOUS if word.isascii() or len(word) > 1)
    )


@cache
def _own(kind: str, language: str) -> frozenset[str]:
    """Words of a table that says nothing where the language is unknown."""
    return frozenset({"closing": _CLOSING, "ordinary": _ORDINARY}[kind].get(language, "").split())


def is_abbreviation(before: str, word: str, after: str, language: str) -> bool | None:
    """Whether the full stop after `before` belongs to its last word; None where no rule of `language` ("": any) says.

    before: what stands before the full stop, the sentence's last 30 characters or so. word: the next word. after: the
    text after the full stop.
    """
    token = before[before.rfind(" ") + 1 :]
    if not token.isalnum():
        token = re.split(r"[\s'’\"“„«»‚(\[{]", token)[-1]  # without an elided article too: "l'art", "dell’art"
    if language == "en" and _is_plain(token, word):
        return None
    before = _SPACES.sub(" ", before)
    if not token:
        return None
    if token.isdecimal() or (_ROMAN.fullmatch(token) and language in _ORDINAL):
        if _is_ordinal(before, token, word, after, language):
            return True
        return False if token.isdecimal() and word.lower() in function_words(language) else None
    chain = _CHAIN.search(before)
    names = {token.lower()} | ({chain[0].replace(" ", "").lower()} if chain else set())
    if language == "en":
        return _is_cited(names, token, word, after) or (bool(chain) and _is_source(before, word)) or None
    counted = _is_counted(word, after)
    if token.lower() in _own("ordinary", language) and not counted:
        return False
    opens = word.lower() in function_words(language) and not _is_code(word, after)
    if any(name in _table("leading", language) for name in names):
        return True
    if counted and (names & _table("numbered", language) or _COMPOUND.search(token)):
        return True
    if names & _own("closing", language):
        return not (opens or word[1:2].islower())
    if language and names & _table("trailing", language):
        return not opens
    if language and chain and _SHORT_CHAIN.fullmatch(chain[0]):
        return not opens
    if len(token) == 1 and token.isupper() and language:
        return not (opens and before[-3:-2].islower())
    return _is_plural(token, word) or None


def _is_plain(token: str, word: str) -> bool:
    """English: whether neither the word before the full stop nor the one after has a rule here."""
    return token.lower() not in LEGAL and token not in ("v", "vs") and word[0] not in "§¶" and not token.isdecimal()


def _is_plural(token: str, word: str) -> bool:
    """ "EE. UU.", "RR. HH.": doubled letters."""
    return len(token) == 2 == len(word) and len(set(token)) == 1 == len(set(word)) and word.isupper()


def _is_code(word: str, after: str) -> bool:
    """Whether a letter goes on with a hyphen or digits: "C.I.F. A-4600"."""
    rest = after[after.find(word) + 1 :]
    return len(word) == 1 and rest[:1] in ("-", "–", "/", *"0123456789")


def _is_counted(word: str, after: str) -> bool:
    """Whether a number, a section sign, a letter or another abbreviation follows."""
    if word[0].isdecimal() or word[0] in "§¶№°+" or (_ROMAN.fullmatch(word) and len(word) < 7):
        return True
    rest = after[after.find(word) + len(word) :]
    return len(word) <= 3 and word[0].isalpha() and rest[:1] in (".", ")", ",")


def _is_cited(names: set[str], token: str, word: str, after: str) -> bool:
    """English: sections and sources of law, which go on with a number, a capital and a full stop, or a party's name."""
    if word[0] in "§¶":
        return token[:1].isupper() or token.lower() in LEGAL
    if names & LEGAL and token[:1].isupper() and _is_counted(word, after):
        return True
    return token in ("v", "vs")


def _is_source(before: str, word: str) -> bool:
    """English: a code or reporter of several abbreviations, "Cal. Civ. Code"."""
    parts = before.split(" ")[-2:]
    shortened = len(parts) == 2 and parts[0].endswith(".") and all(part[:1].isupper() for part in (*parts, word))
    return shortened and all(part.strip("(.").lower() in LEGAL for part in parts) and not _opens(word)


def _opens(word: str) -> bool:
    return word.lower() in function_words("en")


def _is_ordinal(before: str, token: str, word: str, after: str, language: str) -> bool:
    """Whether a number with its full stop is a day, a month or "the so-and-so-manieth"."""
    lower = word.lower()
    if token.isdecimal() and len(token) <= 2:
        if lower in MONTHS and not (language == "en" and lower in _ENGLISH_MONTHS):
            return True
        if language != "en" and (_DATE_ON.match(after) or (word.isdecimal() and _DATE_BEFORE.search(before))):
            return True
    if (language not in _ORDINAL and language != "") or (len(token) > 3 and token.isdecimal()):
        return False
    if lower in _COUNTED:
        return True
    if language == "" or lower in function_words(language) or not word[0].isalpha():
        return False
    previous = before[: -len(token)].rstrip().rsplit(" ", 1)[-1]
    if token.isdecimal():
        return previous.lower() in function_words(language)
    return previous[:1].isupper() and not previous.endswith(".")
