"""Read a BEIR folder: queries, judged documents, no answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ctxprune.errors import InputError
from ctxprune.qa import LabelledDocument, Question, open_text, read_rows
from ctxprune.qa_corpus import corpus_document
from ctxprune.types import Document

Judgements = dict[str, dict[str, int]]


def read_beir(folder: Path, *, split: str = "train", corpus: Path | None = None) -> Iterator[Question]:
    """Every query judged in `qrels/<split>.tsv` with its judged documents; those judged above 0 are gold.

    There are neither answers nor sentence labels, so a gold document's `relevant` is None and that of one judged 0 is
    (). Only judged documents are held in memory. Raises InputError for a missing split, a bad line, a query or document
    that is judged but not there.
    """
    judgements = _read_qrels(folder, split)
    corpus = corpus or _either(folder, "corpus.jsonl")
    wanted = {name for judged in judgements.values() for name in judged}
    documents = {document.id: document for document in _documents(corpus) if document.id in wanted}
    if absent := wanted - documents.keys():
        raise InputError(f"{corpus} lacks {len(absent)} judged documents of qrels/{split}.tsv, e.g. {min(absent)!r}")
    queries = _either(folder, "queries.jsonl")
    for number, row in read_rows(queries):
        name, text = str(row.get("_id", row.get("id", ""))), row.get("text")
        if not name or not isinstance(text, str):
            raise InputError(f"{queries}:{number}: needs fields '_id' and 'text'")
        if judged := judgements.pop(name, None):
            yield _question(name, text, ((documents[key], relevance) for key, relevance in judged.items()))
    if judgements:
        raise InputError(f"{queries} lacks {len(judgements)} queries of qrels/{split}.tsv, e.g. {min(judgements)!r}")


def _question(name: str, text: str, judged: Iterable[tuple[Document, int]]) -> Question:
    labelled = tuple(
        LabelledDocument(document, is_gold=relevance > 0, relevant=None if relevance > 0 else ())
        for document, relevance in judged
    )
    return Question(name, text, answerable=any(document.is_gold for document in labelled), documents=labelled)


def _documents(corpus: Path) -> Iterator[Document]:
    for number, row in read_rows(corpus):
        yield corpus_document(row, f"{corpus}:{number}")


def _either(folder: Path, name: str) -> Path:
    """The file of that name in the folder, gzipped if only that is there."""
    plain, gzipped = folder / name, folder / f"{name}.gz"
    return gzipped if gzipped.exists() and not plain.exists() else plain


def _read_qrels(folder: Path, split: str) -> Judgements:
    """Relevance by query and document, from a `query-id corpus-id score` table with a header line."""
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.tsv"))) or "none"
        raise InputError(f"{path} does not exist; splits here: {known}; pass split=")
    judgements: Judgements = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\r\n").split("\t")
            if (number == 1 and fields[-1] == "score") or not line.strip():
                continue
            if len(fields) != 3 or not fields[2].removeprefix("-").isdecimal():
                raise InputError(
                    f"{path}:{number}: expected query-id, corpus-id and a whole score, got {line.strip()!r:.80}"
                )
            judgements.setdefault(fields[0], {})[fields[1]] = int(fields[2])
    return judgements
