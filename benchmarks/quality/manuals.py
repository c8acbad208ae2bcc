"""Questions on reference texts that every Python carries: what `pydoc` prints of modules of its standard library.

Nothing of them is shipped or fetched: each text is one document of 500 to 10,000 words, and an answer is a literal
string that must stand in it. Versions of Python differ, so a question whose answer is gone is left out and named.
"""

from __future__ import annotations

import importlib
import pydoc
import re
from collections.abc import Mapping, Sequence

from ctxprune.data.questions import LabelledDocument, Question, answer_sentences
from ctxprune.types import Document

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

#: (question, answer) pairs by module.
QUESTIONS: Mapping[str, Sequence[tuple[str, str]]] = {
    "argparse": [
        ("Which nargs value consumes zero or one arguments?", "'?' consumes zero or one arguments"),
        ("How do I build a parser whose options are copied from other parsers?", "Parsers whose arguments should be"),
        ("Which formatter class adds default values to argument help?", "adds default values to argument help"),
        ("Can long options be abbreviated, and which keyword controls that?", "Allow long options to be abbreviated"),
        ("Where does error() write the usage message?", "incorporating the message to stderr"),
        ("What is the default name of the program in usage messages?", "os.path.basename(sys.argv[0])"),
        (
            "Which classes keep the help text as I formatted it?",
            "RawDescriptionHelpFormatter and RawTextHelpFormatter tell",
        ),
    ],
    "subprocess": [
        ("Which exception tells me that a process took too long?", "a TimeoutExpired"),
        ("What happens with check=True when the command fails?", "If check is True and the exit code was non-zero"),
        ("How can I capture stderr together with the output?", "use stderr=STDOUT"),
        ("Which option runs the command through the shell?", "If true, the command will be executed through the shell"),
        ("What does getoutput do with the exit status?", "the exit status is ignored"),
        ("How do I set the working directory of the child?", "Sets the current directory before the child is executed"),
        ("What stands for throwing output away?", "os.devnull should be used"),
    ],
    "csv": [
        ("Which quoting mode puts quotes around every field?", "csv.QUOTE_ALL means that quotes"),
        ("What separates fields by default?", "field separator.  It defaults to ','"),
        ("What does doublequote do when reading?", "two consecutive quotes are interpreted as one during read"),
        ("Why not simply split each line at commas?", "is bound to fail"),
        ("When is the escape character needed?", "when quoting is set to QUOTE_NONE"),
        ("What does field_size_limit return?", "Returns old limit"),
        ("Which PEP describes the interface?", "PEP 305"),
    ],
    "json": [
        ("How do I get the most compact JSON?", "you should specify ``(',', ':')`` to eliminate"),
        (
            "What happens to dictionary keys that are not basic types?",
            "skipkeys is True, such items are simply skipped",
        ),
        ("Why would I sort the keys of dictionaries?", "this is useful for regression tests"),
        ("What does an indent of 0 do?", "An indent level of 0 will only insert newlines"),
        ("How can floats be decoded as decimals?", "for JSON floats (e.g. decimal.Decimal)"),
        ("How do I decode a string that has other data after the JSON document?", "have extraneous data at the end"),
        ("Which attribute of the error holds the column?", "The column corresponding to pos"),
    ],
    "tempfile": [
        ("Which function is unsafe because of races?", "'mktemp' is subject to race conditions"),
        ("Who has to delete a directory made by mkdtemp?", "Caller is responsible for deleting the directory"),
        ("What can go wrong with automatic deletion on POSIX?", "cannot be automatically deleted if"),
        ("Do child processes inherit the descriptor of mkstemp?", "descriptor is not inherited by children"),
        (
            "In which mode does mkstemp open the file by default?",
            "Else (the default) the file is opened in binary mode",
        ),
        ("How many names are tried before giving up?", "maximum number of names that will be tried"),
    ],
    "shutil": [
        ("How does copytree react when the target directory exists?", "`FileExistsError` is raised"),
        ("What does which return if the program is not there?", "or None if there is no such"),
        ("Which size is assumed when the terminal cannot be asked?", "Fallback defaults to (80, 24)"),
        ("Which archive formats can be made?", 'one of "zip", "tar", "gztar"'),
        ("When does move copy instead of renaming?", "Otherwise, src is copied to the destination"),
        ("Which fields has the result of disk_usage?", "a named tuple with attributes 'total', 'used' and"),
        ("What is raised when both paths name the same file?", "a SameFileError will be"),
        ("How can I exclude files from a recursive copy by pattern?", "Patterns is a sequence of glob-style patterns"),
    ],
    "textwrap": [
        ("How wide are wrapped lines by default?", "width (default: 70)"),
        (
            "What happens to words longer than the width if they may not be broken?",
            "some lines might be longer than 'width'",
        ),
        ("Why is fixing sentence endings switched off?", "Off by default because the algorithm is"),
        ("Which text marks that the output was truncated?", "Append to the last line of truncated text"),
        ("What is put before every line but the first?", "string that will be prepended to all lines save the first"),
        ("Which method must I override to replace the wrapping algorithm?", "have to override _wrap_chunks()"),
    ],
    "heapq": [
        ("Which element of a heap is the smallest?", "a[0] is always its smallest element"),
        ("How long does heapify take?", "in O(len(heap)) time"),
        ("Does merge load all its inputs into memory?", "does not pull the data into memory all at once"),
        ("How do I get the n largest elements?", "Find the n largest elements in a dataset"),
        ("Which call suits a heap of fixed size?", "more appropriate when using a fixed-size heap"),
        ("Does heappop give the largest or the smallest item?", "returns the smallest item, not the largest"),
    ],
    "logging": [
        ("Where do messages go by default after basicConfig?", "create a StreamHandler which writes to"),
        (
            "How can existing handlers of the root logger be replaced?",
            "attached to the root logger are removed and closed",
        ),
        ("Which mode opens the log file if none is given?", "it defaults to 'a'"),
        ("What happens when both stream and filename are given?", "are present, 'stream' is ignored"),
        ("What does getLogger return without a name?", "If no name is specified, return the root logger"),
        ("How do I send Python's warnings to the log?", "redirect all warnings to the logging package"),
        ("When should shutdown be called?", "Should be called at application exit"),
        ("What should I use instead of fatal?", "use critical() instead"),
    ],
    "random": [
        ("What is the period of the generator?", "The period is 2**19937-1"),
        ("Does randint include both end points?", "including both end points"),
        (
            "How do I draw from a huge range of integers without wasting memory?",
            "This is especially fast and space efficient",
        ),
        ("Which seeds are supported?", "The only supported seed types are"),
        ("Is gauss safe to use from several threads?", "Not thread-safe without a lock around calls"),
        ("Does shuffle return a new list?", "Shuffle list x in place, and return None"),
        ("Are elements replaced when choices draws several?", "chosen with replacement"),
    ],
    "zipfile": [
        ("Which compression needs bz2?", "ZIP_BZIP2 (requires bz2)"),
        ("How do I write a file of unknown size beyond 2 GiB?", "pass force_zip64"),
        ("Which compression levels does deflate accept?", "ZIP_DEFLATED integers 0 through 9 are accepted"),
        ("How is text encoded when I write a str into the archive?", "it is encoded as UTF-8 first"),
        ("How can I check an archive for damage?", "Read all the files and check the CRC"),
        ("When is LargeZipFile raised?", "the zipfile requires ZIP64 extensions"),
    ],
}


def manual_questions(
    questions: Mapping[str, Sequence[tuple[str, str]]] = QUESTIONS,
) -> tuple[list[Question], list[str]]:
    """The questions that this Python's texts answer, one document each, and a line for each that they do not."""
    found: list[Question] = []
    missing: list[str] = []
    for module, pairs in questions.items():
        document = Document(manual(module), id=f"pydoc:{module}", title=module)
        for number, (text, answer) in enumerate(pairs):
            spans = tuple((match.start(), match.end()) for match in re.finditer(re.escape(answer), document.text))
            if not spans:
                missing.append(f"{module}: {text} ({answer!r} does not stand in this Python's text)")
                continue
            relevant = answer_sentences(document.text, spans)
            labelled = LabelledDocument(document, is_gold=True, answer_spans=spans, relevant=relevant)
            found.append(Question(f"{module}:{number}", text, (answer,), documents=(labelled,)))
    return found, missing


def manual(module: str) -> str:
    """What `pydoc` prints of a module, without the addresses and the file name that change from run to run."""
    text = pydoc.plain(pydoc.render_doc(importlib.import_module(module)))
    return _ADDRESS.sub("", text).partition("\nFILE\n")[0].rstrip() + "\n"
