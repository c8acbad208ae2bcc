"""The sets that `ctxprune eval data` makes, and how a question file comes of one: read, checked and written whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Question, row_from_question
from ctxprune.errors import CtxpruneError, InputError, UnknownNameError
from ctxprune.eval.convert.made import LeaveOut, Made, Shape, overlapping
from ctxprune.eval.convert.pages import contractnli, covidqa, qmsum, tatqa, timeqa, wice
from ctxprune.eval.convert.passages import clapnq, hotpotqa, qed, selqa, squad11, squad20, xquad
from ctxprune.files import write_rows
from ctxprune.runtime.weights import file_sha256


class Checked:
    """Passes questions on as they are; remembers the ids.

    Raises InputError, naming the question, for an id that stands twice and for a question that is not sound.
    """

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def __call__(self, made: Iterable[Made], place: str) -> Iterator[Made]:
        """place: the file they come from."""
        for each in made:
            name = each.question.id
            if (first := self._places.get(name)) is not None:
                where = f"in {place}" if first == place else f"in {first} and in {place}"
                raise InputError(f"question {name!r} stands twice, {where}; give each file once")
            self._places[name] = place
            if fault := fault_of(each.question):
                raise InputError(f"{place}: question {name!r}: {fault}; the file differs from the one described")
            yield each


def fault_of(question: Question) -> str:
    """What is wrong with a question; "" where nothing is."""
    if not question.text.strip() or not question.documents:
        return "it has no text" if question.documents else "it has no documents"
    if question.answerable != any(labelled.is_gold for labelled in question.documents):
        return (
            "it is answerable without a gold document" if question.answerable else "a document answers the unanswerable"
        )
    return next((fault for each in question.documents if (fault := _document_fault(each, question))), "")


def _document_fault(labelled: LabelledDocument, question: Question) -> str:
    text, name = labelled.document.text, labelled.document.id
    if not text.strip():
        return f"document {name!r} is empty"
    if not labelled.is_gold and (labelled.answer_spans or labelled.relevant):
        return f"document {name!r} is not gold and has labels"
    accepted = {_plain(answer) for answer in question.answers}
    for start, end in labelled.answer_spans:
        if not 0 <= start < end <= len(text) or _plain(text[start:end]) not in accepted:
            return f"document {name!r} has {text[start:end]!r:.60} at {start}, which is no answer"
        if labelled.relevant is not None and not overlapping(labelled.relevant, ((start, end),)):
            return f"document {name!r} has an answer at {start} outside of every relevant sentence"
    return _sentences_fault(labelled)


def _sentences_fault(labelled: LabelledDocument) -> str:
    text, name = labelled.document.text, labelled.document.id
    for start, end in labelled.relevant or ():
        if not 0 <= start < end <= len(text) or text[start:end] != text[start:end].strip():
            return f"document {name!r} has a relevant sentence at [{start}, {end}] that is empty, untrimmed or outside"
    if any(first[0] >= second[0] for first, second in pairwise(labelled.relevant or ())):
        return f"document {name!r} has relevant sentences out of order"
    return ""


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set as it is published.

    page: where it is fetched. files: the official names. suffixes: of the files to take when a folder is given.
    labels: where the sentence labels come from. options: those of `Shape` that mean something for it.
    """

    title: str
    page: str
    files: tuple[str, ...]
    licence: str
    labels: str
    read: Callable[[Path, Shape, LeaveOut], Iterator[Made]]
    suffixes: tuple[str, ...] = (".json",)
    options: tuple[str, ...] = ()

    def paths(self, given: Path) -> list[Path]:
        """The file itself, or the files of a folder in the order of their names. InputError where there is none."""
        if given.is_file():
            return [given]
        if not given.is_dir():
            raise InputError(f"there is no file or folder {given}; fetch {' or '.join(self.files)} from {self.page}")
        endings = tuple(end + packed for end in self.suffixes for packed in ("", ".gz"))
        found = sorted(path for path in given.iterdir() if path.is_file() and path.name.endswith(endings))
        if not found:
            raise InputError(f"{given} holds no {' or '.join(self.suffixes)} file; expected {' or '.join(self.files)}")
        return found


_SQUAD = "https://rajpurkar.github.io/SQuAD-explorer/"
_OFFSETS = "the sentences that hold an answer, by its offsets"

SOURCES: dict[str, Source] = {
    "squad11": Source(
        title="SQuAD 1.1 (Rajpurkar et al., 2016)", page=_SQUAD, files=("dev-v1.1.json", "train-v1.1.json"),
        licence="CC BY-SA 4.0", labels=_OFFSETS, read=squad11, options=("passages",),
    ),
    "squad20": Source(
        title="SQuAD 2.0 (Rajpurkar et al., 2018)", page=_SQUAD, files=("dev-v2.0.json", "train-v2.0.json"),
        licence="CC BY-SA 4.0", labels=_OFFSETS, read=squad20, options=("passages",),
    ),
    "xquad": Source(
        title="XQuAD (Artetxe et al., 2020), a file a language", page="https://github.com/google-deepmind/xquad",
        files=("xquad.LANGUAGE.json",), licence="CC BY-SA 4.0", labels=f"{_OFFSETS}; none for Thai", read=xquad,
        options=("passages",),
    ),
    "covidqa": Source(
        title="COVID-QA (Möller et al., 2020)", page="https://github.com/deepset-ai/COVID-QA",
        files=("data/question-answering/COVID-QA.json",), licence="Apache-2.0; each article under its own",
        labels=_OFFSETS, read=covidqa, options=("whole",),
    ),
    "hotpotqa": Source(
        title="HotpotQA, distractor setting (Yang et al., 2018)", page="https://hotpotqa.github.io/",
        files=("hotpot_dev_distractor_v1.json", "hotpot_train_v1.1.json"), licence="CC BY-SA 4.0",
        labels="people's supporting facts", read=hotpotqa,
    ),
    "qed": Source(
        title="QED (Lamm et al., 2020)", page="https://github.com/google-research-datasets/QED",
        files=("qed-dev.jsonlines", "qed-train.jsonlines"), licence="CC BY-SA 3.0",
        labels="the annotators' sentence, and the answer's where it is another", read=qed, suffixes=(".jsonlines",),
    ),
    "tatqa": Source(
        title="TAT-QA (Zhu et al., 2021)", page="https://github.com/NExTplusplus/TAT-QA",
        files=("dataset_raw/tatqa_dataset_dev.json", "dataset_raw/tatqa_dataset_train.json"), licence="CC BY 4.0",
        labels="every sentence or table row that holds an answer, in what the question is said to rest on", read=tatqa,
    ),
    "contractnli": Source(
        title="ContractNLI (Koreeda & Manning, 2021)", page="https://stanfordnlp.github.io/contract-nli/",
        files=("dev.json", "test.json", "train.json"), licence="CC BY 4.0", labels="the clauses that people chose",
        read=contractnli, options=("whole",),
    ),
    "wice": Source(
        title="WiCE (Kamoi et al., 2023)", page="https://github.com/ryokamoi/wice",
        files=("data/entailment_retrieval/claim/dev.jsonl", "data/entailment_retrieval/claim/test.jsonl"),
        licence="ODC-BY; the web pages belong to their publishers", labels="the union of the supporting sets",
        read=wice, suffixes=(".jsonl",),
    ),
    "clapnq": Source(
        title="ClapNQ (Rosenthal et al., 2024)", page="https://github.com/primeqa/clapnq",
        files=("annotated_data/dev/clapnq_dev_answerable.jsonl", "annotated_data/dev/clapnq_dev_unanswerable.jsonl"),
        licence="Apache-2.0; text CC BY-SA 3.0", labels="the sentences that annotators selected", read=clapnq,
        suffixes=(".jsonl",),
    ),
    "selqa": Source(
        title="SelQA (Jurczyk et al., 2016)", page="https://github.com/emorynlp/selqa",
        files=("ass/selqa-ass-dev.json", "ass/selqa-ass-test.json"), licence="Apache-2.0; text CC BY-SA",
        labels="the sentences that people chose", read=selqa,
    ),
    "qmsum": Source(
        title="QMSum (Zhong et al., 2021)", page="https://github.com/Yale-LILY/QMSum",
        files=("data/ALL/val/", "data/ALL/jsonl/val.jsonl"), licence="MIT; the transcripts of AMI and ICSI CC BY 4.0",
        labels="the speaker turns of the marked ranges", read=qmsum, suffixes=(".json", ".jsonl"), options=("whole",),
    ),
    "timeqa": Source(
        title="TimeQA, the questions that people wrote (Chen et al., 2021)",
        page="https://github.com/wenhuchen/Time-Sensitive-QA",
        files=("dataset/human_annotated_test.json", "dataset/human_annotated_train.json"),
        licence="BSD-3-Clause; text CC BY-SA", labels=_OFFSETS, read=timeqa,
    ),
}  # fmt: skip


def source_of(name: str) -> Source:
    """The set of this name; UnknownNameError lists those there are."""
    if name not in SOURCES:
        raise UnknownNameError(f"no data set {name!r}; there are {', '.join(SOURCES)}")
    return SOURCES[name]


def listing() -> str:
    """Every set with its source, files, licence, labels and options, as plain text."""
    return "\n".join(_entry(name, source) for name, source in SOURCES.items())


def _entry(name: str, source: Source) -> str:
    lines = [
        f"{name}: {source.title}",
        f"  from     {source.page}",
        f"  files    {', '.join(source.files)}",
        f"  licence  {source.licence}",
        f"  labels   {source.labels}",
    ]
    if source.options:
        lines.append(f"  options  {', '.join('--' + option for option in source.options)}")
    return "\n".join(lines) + "\n"


@dataclass(slots=True)
class Built:
    """What came of it.

    questions, unanswerable, documents: how many were written. left_out: by reason. digests: (path, SHA-256) of every
    file that was read, then of the one that was written.
    """

    questions: int = 0
    unanswerable: int = 0
    documents: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    digests: list[tuple[Path, str]] = field(default_factory=list)

    def in_words(self) -> str:
        """A line a fact, for people."""
        lines = [f"{digest}  {path}" for path, digest in self.digests]
        lines.append(
            f"{self.questions} questions, {self.unanswerable} of them unanswerable, "
            f"{self.documents / max(1, self.questions):.1f} documents each"
        )
        lines += [f"left out {count}: {reason}" for reason, count in sorted(self.left_out.items())]
        return "\n".join(lines) + "\n"


def build(name: str, given: Sequence[Path], out: Path, *, shape: Shape | None = None) -> Built:
    """Make `out` (.jsonl or .jsonl.gz) of the official files of a set, in the order in which they are given.

    given: files, or folders of them. The same files and options make the same bytes. Raises UnknownNameError for a name
    that is no set; InputError for an option that the set does not have, for a file that is another than expected (what
    was expected and what was found), for a question that is not sound or stands twice, and when no question is left.
    """
    source, shape, built = source_of(name), shape or Shape(), Built()
    _refuse_options(name, source, shape)
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise InputError(f"the output's name must end in .jsonl or .jsonl.gz, got {out.name!r}")
    paths = [path for each in given for path in source.paths(each)]
    write_rows(out, _rows(source, name, paths, shape, built), ascii_only=False)
    built.digests += [(out, file_sha256(out))]
    return built


def _refuse_options(name: str, source: Source, shape: Shape) -> None:
    for option, is_set in (("whole", shape.whole), ("passages", shape.passages is not None)):
        if is_set and option not in source.options:
            has = " and ".join(f"--{each}" for each in source.options) or "no such option"
            raise InputError(f"{name} has no --{option}, it has {has}; leave it out")


def _rows(source: Source, name: str, paths: Sequence[Path], shape: Shape, built: Built) -> Iterator[dict[str, Any]]:
    passes = Checked()
    for path in paths:
        built.digests.append((path, file_sha256(path)))
        for made in passes(_read(source, path, shape, built), str(path)):
            question = made.question
            built.questions += 1
            built.unanswerable += not question.answerable
            built.documents += len(question.documents)
            yield row_from_question(question) | {"source": name, "license": source.licence} | dict(made.fields)
    if not built.questions:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in built.left_out.items()) or "the files hold none"
        raise InputError(f"no question of {name} is left ({reasons})")


def _read(source: Source, path: Path, shape: Shape, built: Built) -> Iterator[Made]:
    """What the set's converter makes of a file; InputError where a part of it is not what the form has there."""
    try:
        yield from source.read(path, shape, lambda reason: built.left_out.update([reason]))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, CtxpruneError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: a part is not as in {' or '.join(source.files)} ({what}); download it again"
        ) from error
