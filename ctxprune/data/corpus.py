"""Read a corpus to retrieve from: JSONL, plain text, Markdown, tables, web pages, or a folder of them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ctxprune.data.questions import LabelledDocument, Question
from ctxprune.documents import text_of
from ctxprune.errors import InputError
from ctxprune.files import JSON_LINES, decoded, is_json_lines, open_text, read_rows
from ctxprune.text.navigation import menus
from ctxprune.types import Document

_PAGES = (".html", ".htm", ".xhtml")
_PLAIN = (".txt", ".md", ".csv", ".tsv")
_READ = (*JSON_LINES, *_PLAIN, *_PAGES)
_HEADING = re.compile(r"#{1,6}[ \t]+(.+?)[ \t#]*(?:\r?\n|$)")


def read_corpus(path: str | Path, *, skipped: Callable[[list[str]], None] | None = None) -> Iterator[Document]:
    """The documents of a file or, in the order of their names, of every readable file below a folder.

    JSONL (.gz too): `{"id" | "_id", "text", "title"?}`, the form of BEIR, or `{"id", "contents": "title\\ntext"}`, the
    form of FlashRAG, or with "page_content" or "content" for the text; further fields go to the metadata. In a folder a
    line without an id is named by its place. Any other file is one document: its id is its path (below the folder), its
    title the Markdown heading it begins with, else its name. Of a web page it is the text that a reader sees, without
    the menus; offsets count in it, and its metadata say so with `{"extracted_from": "text/html"}`. skipped: called
    once, before the first document, with the names of the files in a folder that are none of these, if there are any;
    hidden ones are not named. Streams: one document in memory. Raises InputError for a missing or unreadable file and
    for a bad line or field, which it names.
    """
    path = Path(path)
    if path.is_dir():
        yield from _read_folder(path, skipped)
    elif path.name.lower().endswith(_READ):
        yield from _read_file(path, path.name)
    elif not path.exists():
        raise InputError(f"there is no file or folder {path}; check the path")
    else:
        raise InputError(f"cannot tell the form of corpus {path}; name a folder or a {', '.join(_READ)} file")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def is_page(path: Path) -> bool:
    """Whether the name is a web page's."""
    return path.name.lower().endswith(_PAGES)


def _read_folder(folder: Path, skipped: Callable[[list[str]], None] | None) -> Iterator[Document]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    names = {file: file.relative_to(folder) for file in files}
    readable = [file for file in files if file.name.lower().endswith(_READ)]
    if not readable:
        raise InputError(f"{folder} holds no {', '.join(_READ)} file")
    chosen = set(readable)
    others = [name.as_posix() for file, name in names.items() if file not in chosen and not _hidden(name)]
    if others and skipped is not None:
        skipped(others)
    for file in readable:
        try:
            yield from _read_file(file, names[file].as_posix(), named=True)
        except InputError as error:
            raise InputError(f"{error}; mend it, or move the file out of {folder} and run again") from None


def _read_file(path: Path, name: str, *, named: bool = False) -> Iterator[Document]:
    """named: a line without an id gets one."""
    if not is_json_lines(path.name):
        yield _page(path, name) if is_page(path) else _plain(path, name)
        return
    for number, row in read_rows(path):
        if named and row.get("id") is None and row.get("_id") is None:
            row["id"] = f"{name}:{number}"
        yield corpus_document(row, f"{path}:{number}")


def _plain(path: Path, name: str) -> Document:
    try:
        text = decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from None
    heading = _HEADING.match(text) if path.suffix == ".md" else None
    return Document(text, id=name, title=heading.group(1) if heading else path.stem)


def _page(path: Path, name: str) -> Document:
    try:
        page = read_page(decode_page(path.read_bytes()))
    except (OSError, UnicodeDecodeError, LookupError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    return Document(page.text, id=name, title=page.title or path.stem, metadata={"extracted_from": "text/html"})


def corpus_document(row: dict[str, Any], place: str) -> Document:
    """The document of one corpus row; `place` (file and line) begins the InputError for a bad field."""
    name = row.get("_id") if row.get("id") is None else row["id"]
    if name is None:
        raise InputError(f"{place}: field 'id' (or '_id') is missing")
    field = next((field for field in ("text", "page_content", "content") if isinstance(row.get(field), str)), "")
    if field:
        title, text = "" if row.get("title") is None else row["title"], row[field]
    elif isinstance(row.get("contents"), str):
        title, text = _title_and_text(row["contents"])
    else:
        raise InputError(f"{place}: needs a string field 'text', or 'contents' with the title on its first line")
    if not isinstance(title, str):
        raise InputError(f"{place}: field 'title' must be a string, got {type(title).__name__}")
    return Document(text, id=str(name), title=title, metadata=_metadata(row, field))


def _title_and_text(contents: str) -> tuple[str, str]:
    title, newline, text = contents.partition("\n")
    if not newline:
        return "", contents
    title = title.strip()
    quoted = len(title) > 1 and title[0] == title[-1] == '"'  # as the published Wikipedia dumps write titles
    return (title[1:-1] if quoted else title), text


def _metadata(row: dict[str, Any], field: str) -> dict[str, Any]:
    """field: where the text is."""
    further = {key: value for key, value in row.items() if key not in {"id", "_id", "title", "text", "contents", field}}
    nested = further.pop("metadata") or {} if isinstance(further.get("metadata", 0), dict | None) else {}
    return dict(nested | further)


#: A whole number, as tables of numbers write it, too.
_WHOLE = re.compile(r"-?\d{1,9}(?:\.0*)?", re.ASCII)
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
        name, text = text_of(row.get("id") if row.get("_id") is None else row["_id"]), row.get("text")
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
            if len(fields) != 3 or not _WHOLE.fullmatch(fields[2]):
                raise InputError(
                    f"{path}:{number}: expected query-id, corpus-id and a whole score, got {line.strip()!r:.80}"
                )
            judgements.setdefault(fields[0], {})[fields[1]] = int(float(fields[2]))
    return judgements


#: Nothing in these is read by a visitor.
_UNSEEN = {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "canvas", "datalist"}
#: A blank line stands around these, a line break around the others.
_APART = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "pre", "blockquote", "article"}
_BLOCKS = _APART | set(
    re.findall(
        r"\w+",
        "address aside body br caption center dd details dialog div dt fieldset figcaption figure footer form header "
        "hr html legend li main menu nav option section select summary tbody tfoot thead tr",
    )
)
_CELLS = {"td", "th"}
_CELL_MARK = " | "
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
#: What browsers read under these names (WHATWG, Encoding Standard): supersets, which pages use, and names of their own.
_MEANT = {
    **dict.fromkeys(("iso-8859-1", "latin1", "us-ascii", "ascii"), "cp1252"),
    "iso-8859-9": "cp1254",
    **dict.fromkeys(("tis-620", "iso-8859-11", "windows-874"), "cp874"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis"), "cp932"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987"), "cp949"),
    **dict.fromkeys(("gb2312", "gbk", "x-gbk"), "gb18030"),
    "iso-8859-8-i": "iso-8859-8",
    "x-mac-cyrillic": "mac-cyrillic",
}
#: A declared charset stands in this many bytes at the beginning, as browsers look for it.
_DECLARED = 1024


@dataclass(frozen=True, slots=True)
class WebPage:
    """text: a block a line, cells of a row joined by " | ". title: of the page, else its first large heading."""

    text: str
    title: str


def read_page(source: str) -> WebPage:
    """The page of an HTML source, however broken. Preformatted text keeps its white space; menus are left out unless
    there is nothing else (see `ctxprune.text.navigation.menus`).
    """
    page = _parsed(_without_menus(source))
    return page if page.text else _parsed(source)


def _without_menus(source: str) -> str:
    edges = [0, *(edge for span in menus(source) for edge in span), len(source)]
    return " ".join(source[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


def _parsed(source: str) -> WebPage:
    parser = _Parser()
    parser.feed(source)
    parser.close()
    return WebPage(parser.text(), " ".join((parser.title or parser.heading).split()))


def decode_page(content: bytes) -> str:
    """The source of a page by its byte-order mark, else by the charset that it declares, else UTF-8.

    Raises UnicodeDecodeError for bytes that are none of it, and LookupError for a charset that nobody knows.
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding)
    declared = _CHARSET.search(content[:_DECLARED])
    name = declared.group(1).decode("ascii").lower() if declared else "utf-8"
    # a page whose declaration can be read byte by byte is no UTF-16, whatever it says
    return content.decode("utf-8" if name.startswith("utf-16") else _MEANT.get(name, name))


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = self.heading = ""
        self._parts: list[str] = []
        self._unseen: list[str] = []
        self._in: list[str] = []  # of title, h1 and pre, which are open
        self._ended = ""  # the tag that has just ended
        self._line_ends = 2  # at the end of what was read

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen.append(tag)
        if self._unseen:
            return
        if tag in _BLOCKS:  # which neither of these holds, so their end was forgotten
            self._in = [each for each in self._in if each == "pre"]
        if tag in {"title", "pre"} or (tag == "h1" and not self.heading):
            self._in.append(tag)
        self._break(tag)
        if tag in _CELLS and not self._line_ends:
            self._add(_CELL_MARK)
        elif tag == self._ended == "a":  # a menu's links are told apart by their looks alone
            self._add(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _UNSEEN:  # <svg/> holds nothing
            self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            if tag in self._unseen:  # and what was left open in it
                del self._unseen[self._unseen.index(tag) :]
            return
        if tag in self._in:
            self._in.remove(tag)
        self._break(tag)
        self._ended = tag

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if "title" in self._in:
            self.title += data
            return
        if "h1" in self._in:
            self.heading += data
        if "pre" not in self._in:
            data = self._flowing(data)
        if data:
            self._add(data)

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._ended, self._line_ends = "", len(text) - len(text.rstrip("\n"))

    def _flowing(self, data: str) -> str:
        """White space as a browser shows it: a line break in the source is none on the page."""
        data = re.sub(r"[ \t\r\n\f]+", " ", data)
        return data.removeprefix(" ") if self._line_ends or self._parts[-1][-1:] == " " else data

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS and not self._unseen and "title" not in self._in:
            wanted = 2 if tag in _APART else 1 + (tag == "br" and self._line_ends)
            self._parts.append("\n" * max(0, wanted - self._line_ends))
            self._line_ends = max(wanted, self._line_ends)

    def text(self) -> str:
        """What was read, without blanks at line ends and with one blank line in a row at most."""
        text = re.sub(r"[ \t\f\r]+(?=\n|$)", "", "".join(self._parts))
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n")
