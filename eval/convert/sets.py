"""The sets that `ctxprune eval data` makes: where the official files are, under which licence, and who reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ctxprune.errors import InputError, UnknownNameError
from ctxprune.eval.convert.evidence import contractnli, wice
from ctxprune.eval.convert.hotpotqa import hotpotqa
from ctxprune.eval.convert.made import LeaveOut, Made, Shape
from ctxprune.eval.convert.pages import qmsum, timeqa
from ctxprune.eval.convert.qed import qed
from ctxprune.eval.convert.sentences import clapnq, selqa
from ctxprune.eval.convert.squad import covidqa, squad11, squad20, xquad
from ctxprune.eval.convert.tatqa import tatqa


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
