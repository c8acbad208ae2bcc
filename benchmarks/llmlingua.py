"""ctxprune's LLMLingua-2 beside the package llmlingua: the same checkpoint, the same texts, in one run.

    python -m benchmarks.llmlingua --checkpoint FOLDER --data FILE.jsonl.gz --onnx DIR

prints seconds, peak memory and how many words both decide alike, as Markdown. --onnx: what
`python -m ctxprune.trainers.llmlingua2.export` made of the checkpoint. llmlingua is measured where Python finds it:

    pip install --no-deps --target DIR llmlingua==0.2.2 && export PYTHONPATH=DIR
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Literal

from benchmarks.measure import command_line, machine, repeating
from benchmarks.speed_torch import EncoderSize, TorchWorker
from ctxprune.data.corpus import read_corpus
from ctxprune.errors import CtxpruneError, InputError
from ctxprune.eval.report.markdown import compact as table
from ctxprune.models.formats import plain_tokenizer
from ctxprune.runtime.device import memory_mb
from ctxprune.text import model_text

#: llmlingua tells BERT's and XLM-R's tokenizers apart by these words in the folder's name.
_NAMES = {"bert": "bert-base-multilingual-cased", "xlm-roberta": "xlm-roberta-large"}
_SHORT_WORDS = 20
#: llmlingua pads every input to so many tokens.
_PADDED = 512
_INSTALL = "llmlingua is not installed: pip install --no-deps --target DIR llmlingua==0.2.2, then set PYTHONPATH=DIR"


#: The argument with which a child does the task on its standard input, so that time and memory are its own.
_TASK = "--task"
_FIRST = "The first call of a process is slower than those that follow."
_WORD, _LABEL = "\x1e", "\x1f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """model: a folder. texts: compressed by one call, or by a call each.

    unknown_ends: see `ctxprune.integrations.llmlingua.compressor`.
    """

    package: Literal["llmlingua", "ctxprune"]
    model: str
    texts: Sequence[str]
    together: bool
    rate: float
    unknown_ends: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """seconds: without loading. peak_mb: resident, loading included (None where it cannot be read).

    flags: of every call, "1" for each word that stays and "0" for the others.
    """

    seconds: float
    peak_mb: float | None
    flags: tuple[str, ...]


class ThirdsCounter:
    """One token for three characters begun: stands for GPT-3.5's encoding, which would be fetched over the network."""

    name = "thirds"
    exact = True

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self.encode(text)) for text in texts]

    def encode(self, text: str) -> range:
        """As many items as tokens, which is all that llmlingua looks at."""
        return range(-(-len(text) // 3))


def run_task(task: Task, *, limit_seconds: float) -> Outcome | None:
    """Do the task in a child process; None when it takes longer than the limit, which includes loading.

    Raises CtxpruneError with the end of what the child wrote when it fails.
    """
    command = [sys.executable, "-m", "benchmarks.llmlingua", _TASK]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(task)), capture_output=True, text=True, timeout=limit_seconds
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise CtxpruneError(f"{task.package} on {task.model} failed: {done.stderr.strip()[-800:]}")
    seconds, peak_mb, flags = json.loads(done.stdout.splitlines()[-1])
    return Outcome(seconds, peak_mb, tuple(flags))


def perform(task: Task) -> Outcome:
    """Do the task in this process."""
    compress = _compressor(task)
    calls = [list(task.texts)] if task.together else [[text] for text in task.texts]
    compress([_FIRST])
    started = time.perf_counter()
    labelled = [compress(call) for call in calls]
    seconds = time.perf_counter() - started
    memory = memory_mb()
    return Outcome(seconds, memory["peak"] if memory else None, tuple(map(_flags, labelled)))


def _compressor(task: Task) -> Callable[[list[str]], str]:
    """Texts to llmlingua's labelled words."""
    made = _llmlingua(task) if task.package == "llmlingua" else _ctxprune(task)
    options = {"rate": task.rate, "return_word_label": True, "word_sep": _WORD, "label_sep": _LABEL}

    def compress(texts: list[str]) -> str:
        return str(made.compress_prompt(texts, **options)["fn_labeled_original_prompt"])

    return compress


def _llmlingua(task: Task) -> Any:
    stand_in: Any = SimpleNamespace(encoding_for_model=lambda name: ThirdsCounter())
    sys.modules["tiktoken"] = stand_in  # llmlingua fetches the encoding while it is set up
    import llmlingua

    return llmlingua.PromptCompressor(task.model, device_map="cpu", use_llmlingua2=True)


def _ctxprune(task: Task) -> Any:
    from ctxprune.integrations.llmlingua.compressor import PromptCompressor

    config = {"unknown_ends": task.unknown_ends}
    return PromptCompressor(task.model, "cpu", llmlingua2_config=config, counter=ThirdsCounter())


def _flags(labelled: str) -> str:
    return "".join(word.rpartition(_LABEL)[2] for word in labelled.split(_WORD))


@dataclass(frozen=True, slots=True)
class Contender:
    """folder: of the model. llmlingua: whether that package runs it."""

    name: str
    folder: Path
    llmlingua: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Texts for one call (together) or a call each."""

    name: str
    texts: tuple[str, ...]
    together: bool


@command_line
def main(argv: Sequence[str] | None = None) -> int:
    if list(sys.argv[1:] if argv is None else argv) == [_TASK]:
        outcome = perform(Task(**json.load(sys.stdin)))
        print(json.dumps([outcome.seconds, outcome.peak_mb, outcome.flags]))
        return 0
    args = _parser().parse_args(argv)
    command = repeating("llmlingua", argv)
    config = _config(args.checkpoint)
    loads = make_loads(
        (document.text for document in read_corpus(args.data)),
        passages=args.passages, words=args.words, long_words=args.long_words, short=args.short,
    )  # fmt: skip
    with TemporaryDirectory() as scratch:
        contenders = _contenders(args.checkpoint, args.onnx, Path(scratch) / _NAMES[config["model_type"]])
        rows, notes = compare(
            contenders, loads, rate=args.rate, limit_seconds=args.limit_seconds,
            unknown_ends=config["model_type"] == "xlm-roberta",
        )  # fmt: skip
    floor = forward_floor(args.checkpoint, config, loads[0].texts)
    notes += [] if any(each.llmlingua for each in contenders) else [_INSTALL]
    notes += [] if args.onnx else ["no --onnx: ctxprune is measured on torch alone"]
    print(render(command, rows, floor, notes))
    return 0


def make_loads(
    texts: Iterable[str], *, passages: int, words: int, long_words: int, short: int
) -> tuple[Load, Load, Load, Load]:
    """Passages by a call each and in one call, one long document, and many short ones.

    Raises InputError when the corpus is too small for one of them.
    """
    stream = [text.split() for text in islice(texts, passages + short + long_words)]
    cut = tuple(islice((" ".join(each[:words]) for each in stream if len(each) >= words), passages))
    tiny = tuple(islice((" ".join(each[:_SHORT_WORDS]) for each in stream if len(each) >= _SHORT_WORDS), short))
    joined = tuple(islice((word for each in stream for word in each), long_words))
    for what, found, wanted in (
        (f"passages of {words} words", len(cut), passages),
        (f"passages of {_SHORT_WORDS} words", len(tiny), short),
        ("words", len(joined), long_words),
    ):
        if found < wanted:
            raise InputError(
                f"the corpus has {found} {what}, {wanted} are asked for; ask for fewer or give a larger one"
            )
    return (
        Load(f"{passages:,} passages of {words} words, a call each", cut, together=False),
        Load("the same passages in one call, contexts filtered", cut, together=True),
        Load(f"one document of {long_words:,} words", (" ".join(joined),), together=False),
        Load(f"{short:,} documents of {_SHORT_WORDS} words in one call, contexts filtered", tiny, together=True),
    )


def compare(
    contenders: Sequence[Contender], loads: Sequence[Load], *, rate: float, limit_seconds: float, unknown_ends: bool
) -> tuple[list[list[str]], list[str]]:
    """Table rows and notes. What took longer than the limit is left out, as is what is bound to by earlier loads."""
    rows, notes = [], []
    pace: dict[str, float] = {}  # seconds of a text, by contender
    for load in loads:
        reference: Outcome | None = None
        for contender in contenders:
            expected = pace.get(contender.name, 0.0) * len(load.texts)
            _say(f"{load.name}: {contender.name}")
            task = Task(
                package="llmlingua" if contender.llmlingua else "ctxprune", model=str(contender.folder),
                texts=load.texts, together=load.together, rate=rate, unknown_ends=unknown_ends,
            )  # fmt: skip
            outcome = run_task(task, limit_seconds=limit_seconds) if expected <= limit_seconds else None
            if outcome is None:
                guess = f", some {expected:,.0f} s by its pace on passages" if expected > limit_seconds else ""
                notes.append(f"{contender.name} on {load.name}: over the limit of {limit_seconds:g} s{guess}")
                continue
            if load is loads[0]:
                pace[contender.name] = outcome.seconds / len(load.texts)
            reference = outcome if contender.llmlingua else reference
            rows.append([load.name, contender.name, *_figures(outcome, reference)])
    return rows, notes


def _figures(ours: Outcome, reference: Outcome | None) -> list[str]:
    """Seconds, speed-up, peak memory, its share, words and calls decided alike; the shares against llmlingua's."""
    peak = "–" if ours.peak_mb is None else f"{ours.peak_mb:,.0f}"
    if reference is None or reference is ours:
        return [f"{ours.seconds:.2f}", "–", peak, "–", "–", "–"]
    share = f"{ours.peak_mb / reference.peak_mb:.0%}" if ours.peak_mb and reference.peak_mb else "–"
    words, calls = agreement(ours.flags, reference.flags)
    whole = f"{calls} of {len(ours.flags)}"
    return [f"{ours.seconds:.2f}", f"{reference.seconds / ours.seconds:.1f}", peak, share, f"{words:.2%}", whole]


def agreement(ours: Sequence[str], theirs: Sequence[str]) -> tuple[float, int]:
    """Share of words with the same flag, and calls without any difference; flags: as in `Outcome`.

    A call that the two split into different numbers of words counts as different throughout.
    """
    pairs = list(zip(ours, theirs, strict=True))
    same = sum(a == b for one, two in pairs if len(one) == len(two) for a, b in zip(one, two, strict=True))
    return same / max(1, sum(map(len, theirs))), sum(one == two for one, two in pairs)


def forward_floor(checkpoint: Path, config: dict[str, Any], texts: Sequence[str]) -> str:
    """A sentence: what the passages' tokens cost at the machine's measured fp32 matmul peak, padded and not."""
    size = EncoderSize(
        layers=config["num_hidden_layers"], width=config["hidden_size"], heads=config["num_attention_heads"],
        inner=config["intermediate_size"], vocabulary=config["vocab_size"],
    )  # fmt: skip
    tokenizer = plain_tokenizer(checkpoint / "tokenizer.json")
    encodings = tokenizer.encode_batch([model_text(text) for text in texts], add_special_tokens=False)
    lengths = [len(each.ids) + 2 for each in encodings]
    with TorchWorker() as worker:
        peak = worker.matmul_peak("float32", sides=(1024, 2048), repeats=15)
    own, padded = size.flops(lengths), size.flops([_PADDED] * len(lengths))
    return (
        f"Floor: the passages' {sum(lengths):,} tokens take {own / 1e12:.2f} x 10^12 operations in matrix products, "
        f"{own / peak:.1f} s at the fp32 matmul peak of {peak / 1e9:,.0f} x 10^9 a second measured after the table. "
        f"Padded to {_PADDED} tokens each, as llmlingua reads them, {padded / own:.1f} times as many, twice for each "
        f"passage that its filter of contexts lets through."
    )


def render(command: str, rows: Sequence[Sequence[str]], floor: str, notes: Sequence[str]) -> str:
    """The whole report in Markdown."""
    told = machine()
    versions = ", ".join(f"{name} {version}" for name, version in told["packages"].items() if version)
    load = "unknown" if told["load"] is None else f"{told['load']:.1f} at the end"
    head = ["texts", "contender", "seconds", "times as fast", "peak MB", "of llmlingua's", "words alike", "calls alike"]
    parts = [
        f"Made by:\n\n    {command}",
        f"{told['processor']}, {told['cpus']} cores; {versions}; load average {load}. Each line is a process "
        "of its own; loading is in the memory and not in the seconds. Tokens are counted as one for three characters.",
        table(head, rows),
        floor,
        *(f"Left out: {note}" for note in notes),
    ]
    return "\n\n".join(parts) + "\n"


def _config(checkpoint: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{checkpoint / 'config.json'} cannot be read ({error}); pass a checkpoint's folder"
        ) from error
    if config.get("model_type") not in _NAMES:
        raise InputError(f"llmlingua reads {' and '.join(_NAMES)}, {checkpoint} is {config.get('model_type')!r}")
    return config


def _contenders(checkpoint: Path, onnx: Path | None, link: Path) -> list[Contender]:
    """link: where the checkpoint gets a name that llmlingua knows."""
    link.symlink_to(checkpoint.resolve(), target_is_directory=True)
    found = [Contender("llmlingua", link, llmlingua=True)] if find_spec("llmlingua") else []
    found.append(Contender("ctxprune.integrations.llmlingua.compressor, fp32, torch", checkpoint))
    if onnx is not None:
        found += [
            Contender(f"ctxprune.integrations.llmlingua.compressor, {kind}, ONNX Runtime", onnx / kind)
            for kind in ("fp32", "int8")
        ]
    return found


def _say(line: str) -> None:
    print(f"measuring {line} ...", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llmlingua", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a BERT or XLM-R token classifier")
    parser.add_argument("--onnx", type=Path, help="folder with fp32/ and int8/ of the same checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="corpus to take texts from (JSONL, .gz too)")
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--words", type=int, default=100, help="of a passage")
    parser.add_argument("--long-words", type=int, default=50_000, help="of the long document")
    parser.add_argument("--short", type=int, default=2000, help=f"documents of {_SHORT_WORDS} words")
    parser.add_argument("--rate", type=float, default=0.5, help="share of the tokens to keep")
    parser.add_argument("--limit-seconds", type=float, default=90.0, help="for one line of the table, loading included")
    return parser


if __name__ == "__main__":
    sys.exit(main())
