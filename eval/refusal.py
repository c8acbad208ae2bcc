"""Whether a generator's answer is a refusal: it says, in English, that it does not know or was not told."""

from __future__ import annotations

import re
from typing import Final

#: Ways to write the same, made one before any pattern is tried; adverbs go, so that no pattern needs to expect them.
_REWRITES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[’‘`]", "'"),
        (r"\bcan't\b|\bcannot\b", "can not"),
        (r"n't\b", " not"),
        (r"\b(do|does|did)nt\b", r"\1 not"),
        (r"'m\b", " am"),
        (r"'re\b", " are"),
        (r"\b(it|that|there)'s\b", r"\1 is"),
        (r",?\s*\b(?:explicitly|actually|directly|specifically|clearly|really|even|yet|currently|also|exactly)\b", ""),
        (r"\s+", " "),
    )
)

#: What a refusal calls the prompt. No "book" or "treaty": what those do not mention can be the answer.
_SOURCE: Final = (
    r"(?:(?:the|this|these|your|any of the|none of the) )?"
    r"(?:(?:given|provided|above|retrieved|supplied|available|relevant) )*"
    r"(?:contexts?|texts?|passages?|documents?|information|articles?|paragraphs?|excerpts?|sources?|snippets?)"
)
_SPEAKER: Final = r"(?:i|we|you)"  # "you": small models copy "say that you do not know"
_NOT: Final = r"(?:(?:do|does|did|is|are|was|were|has|have|can|could) not|never)"
_FIND: Final = r"(?:answer|find|determine|tell|say|provide|give|locate|identify|confirm|infer|know)"
_FOUND: Final = r"(?:answered|found|determined|told|said|provided|given|located|identified|mentioned|stated|specified)"
_HOLD: Final = (
    r"(?:contain|mention|provide|include|say|state|specify|answer|give|tell|hold|have|indicate|address|discuss"
    r"|describe|identify|list|name|reveal|offer|explain|refer|cover|clarify|enough|sufficient|clear|relevant|related)"
)
_FACTS: Final = r"(?:information|details?|data|context|answers?|knowledge|idea|clue)"

#: A whole answer that refuses, its outer punctuation taken off.
_WHOLE: Final = re.compile(
    r"(?:it is |(?:this|the) question is )?(?:unanswerable|not answerable|unknown|unclear|n/a|idk|dunno|not sure)"
    rf"|no (?:answer|information|idea|clue|relevant text was found)(?: {_FOUND})?"
    rf"|not (?:{_FOUND}|available|known)(?: (?:in|by|from) {_SOURCE})?"
    rf"|(?:not enough|insufficient) {_FACTS}"
)

#: Ways to open a refusal, after an optional `_LEAD`.
_OPENINGS: Final = (
    # not "I Don't Know How to Love Him", a song
    rf"{_SPEAKER} (?:do|did) not know\b(?= ?[.,;:!?\"')-]| ?$| (?:the|who|what|when|where|which|why|if|whether|for|that"
    r"|this|any|about|of|based|from|because|as|since|but|how(?! to\b))\b)",
    rf"{_SPEAKER} (?:am|are) (?:not (?:sure|certain|aware)|unsure|unaware)\b",
    rf"(?:{_SPEAKER} )?(?:(?:can|could) not|(?:am |are )?(?:unable|not able) to) {_FIND}\b",
    rf"{_SPEAKER} (?:do not have|have no|lack)\b[^.!?,]*?\b{_FACTS}\b",
    rf"{_SOURCE}\b[^.!?;]*?\b{_NOT} {_HOLD}",
    rf"(?:none|neither) of {_SOURCE} {_HOLD}",
    rf"{_SOURCE}\b[^.!?;]*?\b(?:(?:contain|provide|give|make|offer)s?|has|have) (?:no|nothing)\b",
    rf"{_SOURCE} (?:is|are) (?:silent|insufficient|unclear|unrelated|irrelevant)\b",
    rf"(?:although|though|while) [^.!?]*?, (?:it|they|{_SOURCE}) {_NOT} {_HOLD}",
    rf"there (?:is|are|was|were) (?:no|not (?:any|enough)|insufficient) (?:\w+ ){{0,2}}{_FACTS}\b",
    rf"there (?:is|are|was|were) (?:no|not any|nothing)\b[^.!?]*\b(?:in|from) {_SOURCE}\b",
    rf"(?:no|not enough|insufficient) (?:\w+ ){{0,2}}{_FACTS}\b[^.!?]*\b(?:is|are|was|were) ",
    r"it is (?:not (?:possible|clear|known)|impossible|unclear|unknown)"
    rf"(?= ?[.,;]| ?$| (?:to {_FIND}|from|in|wh\w+|how)\b)",
    r"(?:the|this) (?:answer|question)\b[^.!?,]*? is (?:unknown|unclear|unanswerable|not (?:known|available|clear))\b",
    rf"(?:the|this) (?:answer|question)\b[^.!?,]*? {_NOT} (?:(?:be |been )?{_FOUND}\b|in {_SOURCE})",
    rf"[^.!?,]*?\b{_NOT} (?:be |been )?(?:{_FOUND}|discussed|listed|included)(?: anywhere)? (?:in|by|from) {_SOURCE}\b",
    rf"[^.!?,]*?\b{_NOT} (?:be |been )?(?:mentioned|stated|specified|determined)(?= ?[.!]| ?$)",
)
#: What may stand before a refusal: a label, an apology, a bow to the context.
_LEAD: Final = (
    r"(?:answer: |(?:(?:i am|we are) )?(?:very |so )?sorry,? (?:but )?|i apologi[sz]e,? (?:but )?|unfortunately,? "
    r"|as an ai[^,.]*, "
    rf"|(?:based (?:solely |only )?on|according to|from|given|in) {_SOURCE}(?: (?:provided|given|above))?,? )*+"
)
_REFUSAL: Final = re.compile(f"{_LEAD}(?:{'|'.join(f'(?:{opening})' for opening in _OPENINGS)})")

#: Where an answer turns from "I do not know" to a guess or a fact.
_TURN: Final = re.compile(
    r"\b(?:but|however|though|although|nevertheless|nonetheless)\b,?"
    r"|[.,;:!?-] ?(?:so |and )?(?:the (?:\w+ )?answer (?:is|was|could|may|might)\b"
    r"|(?:it|he|she|they|this|that) (?:is|was|are|were|could be|may be|might be|must be)\b"
    r"|(?:probably|possibly|likely|presumably|perhaps|maybe|my (?:best )?guess)\b"
    r"|i (?:think|believe|guess|suspect|assume|would (?:say|guess))\b)"
)
#: What may follow a turn without answering: an offer, advice, what the context is about instead, or nothing.
_NO_FACT: Final = re.compile(
    r"\W*$"
    r"|(?:i (?:can|could|would|will)|i'(?:d|ll)|if you|please|you (?:can|could|may|might|should)|feel free|let me)\b"
    rf"|(?:{_SOURCE}|it) (?:only |just )?(?:mention|discuss|describe|talk|refer|provide|contain)"
)

#: Characters that are read, which bounds the time that a model's endless repetitions take.
_READ: Final = 2000


def refuses(prediction: str) -> bool:
    """Whether the answer is nothing but a refusal: empty, "unanswerable", "I don't know", "the context does not say".

    English only, and conservative: the refusal must open the answer, and an answer that goes on to a guess or a fact
    ("I am not sure, but it was Paris") is none. Reasons, apologies, offers and advice around a refusal do not undo it.
    """
    text = prediction[:_READ].lower()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _refuses(text.strip(" \"'*“”([,.:;-"))


def _refuses(text: str) -> bool:
    if not any(character.isalnum() for character in text):
        return True
    if _WHOLE.fullmatch(text.removeprefix("answer: ").removeprefix("the answer is ").strip(" .!?\"'*)]”")):
        return True
    opening = _REFUSAL.match(text)
    if opening is None:
        return False
    rest = text[opening.end() :]
    turn = _TURN.search(rest)
    if turn is None:
        return True
    tail = rest[turn.end() :].strip()
    return _NO_FACT.match(tail) is not None or _refuses(tail)
