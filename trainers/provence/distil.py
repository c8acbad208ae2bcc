"""Let a stronger pruner read the training pairs, so that a smaller one learns from its probabilities too.

    python -m ctxprune.trainers.provence.distil --teacher MODEL --data FILE[:LIMIT[:REPEAT]] ... --out FOLDER
    ctxprune train provence --taught FOLDER --teacher-weight 0.5 --data (the same) ...

Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531) at temperature 1: the small model's targets are a mixture
of the labels and of the teacher's probabilities, and where a passage has no labels they are the teacher's alone. The
two may split words in different ways, so probabilities go from one model's tokens to the other's by characters. The
same data, seed and variations draw the same pairs; those that the teacher has not read keep their labels. A labelling
that was stopped goes on when its command is repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ctxprune.compressors.provence.pruner import Passage, PrunerModel, Reading
from ctxprune.errors import InputError
from ctxprune.files import batched
from ctxprune.runtime import FloatArray, sigmoid
from ctxprune.trainers.provence.items import read_families
from ctxprune.trainers.provence.pairs import Pair, Variation
from ctxprune.trainers.provence.taught import Floats, Taught, key, read_file, write_lessons
from ctxprune.trainers.shared.corpora import Source

#: Pairs in a file: what a stopped labelling loses at most.
PAIRS_A_FILE = 2000
#: Pairs of similar lengths that are read together.
_BATCH = 64


def teach(pairs: Sequence[Pair], teacher: PrunerModel, folder: Path) -> int:
    """Let the teacher read the pairs that no file of `folder` has yet; returns how many that were.

    Raises InputError where another teacher has begun the folder: two of them do not mean the same by a probability.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_teacher(folder / "teacher.txt", teacher.name)
    known = {found for path in folder.glob("*.npz") for found in read_file(path)}
    passages = {key(one.question, one.title, one.text): Passage(one.question, one.title, one.text) for one in pairs}
    unread = [(digest, passage) for digest, passage in passages.items() if digest not in known]
    first = max((int(path.stem) + 1 for path in folder.glob("*.npz") if path.stem.isdecimal()), default=0)
    for number, part in enumerate(batched(unread, PAIRS_A_FILE)):
        write_lessons(folder / f"{first + number:05}.npz", dict(_taught(part, teacher)))
        print(f"{number * PAIRS_A_FILE + len(part)} of {len(unread)} pairs", flush=True)
    return len(unread)


def _check_teacher(path: Path, name: str) -> None:
    if path.is_file() and (before := path.read_text(encoding="utf-8").strip()) != name:
        raise InputError(f"{path.parent} holds labels of the teacher {before!r}, not {name!r}; name another --out")
    path.write_text(f"{name}\n", encoding="utf-8")


def _taught(part: Sequence[tuple[bytes, Passage]], teacher: PrunerModel) -> Iterator[tuple[bytes, Taught]]:
    ordered = sorted(part, key=lambda one: len(one[1].text))
    for batch in batched(ordered, _BATCH):
        readings = teacher.read([passage for _, passage in batch])
        for (digest, _), reading in zip(batch, readings, strict=True):
            yield digest, _of(reading)


def _of(reading: Reading) -> Taught:
    answer = np.full(len(reading.keep), np.nan) if reading.answer is None else _probability(reading.answer)
    return Taught(
        reading.offsets, _probability(reading.keep), answer.astype(np.float32), _probability(reading.ranks).max()
    )


def _probability(log_odds: FloatArray) -> Floats:
    return sigmoid(log_odds.astype(np.float64)).astype(np.float32)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = made.add_argument
    add("--teacher", required=True, help="an exported pruner's folder, or a checkpoint's folder or hub id")
    add("--data", required=True, nargs="+", metavar="FILE[:LIMIT[:REPEAT]]", help="as for the training")
    add("--out", required=True, type=Path, help="folder for the labels")
    add("--seed", type=int, default=13, help="as for the training, like the three below")
    add("--hold-out", type=float, default=0.05)
    add("--per-passage", type=int, default=2)
    add("--told", type=float, default=0.0)
    add("--threads", type=int, default=None, help="for an exported teacher (default: all cores)")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    exported = (Path(arguments.teacher) / "pruner.json").is_file()
    teacher = (
        PrunerModel.from_export(Path(arguments.teacher), threads=arguments.threads)
        if exported
        else PrunerModel.from_checkpoint(arguments.teacher)
    )
    families = read_families(
        [Source.parse(text) for text in arguments.data],
        seed=arguments.seed,
        variation=Variation(told=arguments.told),
        hold_out=arguments.hold_out,
        per_passage=arguments.per_passage,
    )
    count = teach([pair for family in families for pair in family.pairs], teacher, arguments.out)
    print(f"{arguments.out}: {count} pairs read; give it to ctxprune train provence --taught")


if __name__ == "__main__":
    main()
