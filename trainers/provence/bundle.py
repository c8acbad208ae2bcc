"""Make a trained pruner ready to ship: int8 ONNX with a parity report, the fitted context head, and a model card.

    python -m ctxprune.trainers.provence.bundle --checkpoint FOLDER --data FILE[:LIMIT[:REPEAT]] ... --validation FILE \
        --out DIR

The trainer calls this at its end; run it alone to export again. The result loads without torch:
`ctxprune.load("provence", model=FOLDER)`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ctxprune.compressors.provence.model import LoadedPruner, load_pruner
from ctxprune.compressors.provence.pruner import Passage, PrunerModel
from ctxprune.data import read_questions
from ctxprune.data.questions import Question
from ctxprune.files import read_rows
from ctxprune.runtime import TokenSequence
from ctxprune.runtime.torch import TorchRuntime
from ctxprune.trainers.provence.contexts import gather_examples
from ctxprune.trainers.provence.fusion import add_fusion_arguments, fit_and_save
from ctxprune.trainers.shared.corpora import Source, drawn
from ctxprune.trainers.shared.export import export_int8, model_card

#: Tokens of an input at run time: longer windows cost more attention and were rare in training.
WINDOW = 384


def bundle(
    pruner: LoadedPruner,
    out: Path,
    *,
    sources: Sequence[Source],
    validation: Sequence[Question],
    hold_out: float,
    seed: int,
    name: str,
    default_threshold: float = 0.1,
    table_bits: int = 8,
    unseen: Sequence[Source] = (),
    points_from: Sequence[str] = (),
) -> dict[str, Any]:
    """Write model.onnx, tokenizer.json, parity.json and pruner.json into `out`; returns the figures for the card.

    table_bits: see `export_int8`. unseen: files that were not trained on at all. points_from: see `operating_points`.
    """
    out.mkdir(parents=True, exist_ok=True)
    tokenizer_json = out / "tokenizer.json"
    pruner.tokenizer.save(str(tokenizer_json), pretty=False)  # indented: half as many bytes again
    names = ["rank_logits", "token_logits", *(["answer_logits"] if pruner.module.answer_head is not None else [])]
    known = _sequences(pruner, validation)
    for_calibration = min(64, len(known) // 4)
    parity = export_int8(
        pruner.module,
        out,
        output_names=names,
        parity_sequences=known[for_calibration:],
        calibration=known[:for_calibration],
        max_length=pruner.max_length,
        metadata={"ctxprune.name": name},
        table_bits=table_bits,
    )
    config = {"name": name, "max_length": WINDOW, "default_threshold": default_threshold, "fusion": None}
    (out / "pruner.json").write_text(json.dumps(config), encoding="utf-8")
    with_model = PrunerModel.from_export(out)
    examples = gather_examples(with_model, sources, hold_out=hold_out, seed=seed)
    examples += gather_examples(with_model, unseen, hold_out=1.0, seed=seed)
    return {"parity": parity.to_dict(), "fusion": fit_and_save(examples, out, points_from=points_from)}


def _sequences(pruner: LoadedPruner, questions: Sequence[Question], count: int = 264) -> list[TokenSequence]:
    """Model inputs of real questions, in random order."""
    passages = [
        Passage(question.text, item.document.title, item.document.text)
        for question in questions
        for item in question.documents
    ]
    random.Random(0).shuffle(passages)
    model = PrunerModel(
        "export",
        TorchRuntime(pruner.module, device="cpu"),
        pruner.tokenizer,
        pruner.layout,
        WINDOW,
        0.1,
        "sigmoid",
    )
    return list(islice((s for windows, _ in model.lay(passages[:count]) for s in windows.sequences), count))


def data_table(sources: Sequence[Source]) -> str:
    """A Markdown table of the training files and the licences that their rows name."""
    lines = ["| file | questions used at most | passes | licence of the data |", "| --- | --- | --- | --- |"]
    for source in sources:
        path = Path(source.path)
        licences = sorted({str(row.get("license", "not stated")) for _, row in islice(read_rows(path), 3000)})
        shown = "; ".join(licences[:4]) + ("; ..." if len(licences) > 4 else "")
        lines.append(f"| {path.name} | {source.limit or 'all'} | {source.repeat} | {shown} |")
    return "\n".join(lines)


_ABOUT = """\
A query-aware context pruner and reranker after Provence (Chirkova et al., ICLR 2025): one encoder pass over a
question and a passage gives keep log-odds for every token, an answer-position score for every token and a relevance
score for the passage; a small fitted context head turns them, with the words shared by question and sentence and with
what the rest of the context looks like, into one calibrated probability a sentence."""
_FILES = """\
- Files: `model.onnx` (int8 weights, one scale an output channel), `tokenizer.json`, `pruner.json` (window, threshold,
  operating points, context head), `parity.json` (int8 against the fp32 original)
- Licence of the weights: Apache-2.0. The training data keeps its own licences, named below."""
_HELD_OUT = """\
A share of the passages of every file was kept out of training and used to fit the context head and the operating
points, in contexts of one sentence to several articles."""
_EXPLAINED = """\
`validation`: on passages of the validation questions, as they are. `parity`: int8 against fp32. `fusion`: fitted on
four fifths of the held-out contexts and judged on the rest, by file: the share whose best sentence (top1), or one of
the three best (top3), is relevant, and whose best document is a gold one."""


def write_card(
    out: Path,
    *,
    base: str,
    licence: str,
    recipe: str,
    sources: Sequence[Source],
    figures: dict[str, Any],
    language: str = "English. Other languages are scored, but were not trained for.",
) -> None:
    """README.md of the export; figures are those of `bundle` and of the training history."""
    card = model_card(
        out.name,
        base=base,
        about=_ABOUT,
        files=f"- Base model: {base} ({licence})\n{_FILES}\n- Language: {language}",
        recipe=f"{recipe}\n\n{data_table(sources)}\n\n{_HELD_OUT}",
        explained=_EXPLAINED,
        figures=figures,
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Export a trained pruner, fit its fusion, write its model card")
    made.add_argument("--checkpoint", required=True, type=Path, help="folder that the trainer saved")
    add_fusion_arguments(made)
    made.add_argument("--fusion-limit", type=int, default=400, help="held-out questions of each file for the fusion")
    made.add_argument("--validation", required=True, help="questions for the parity report")
    made.add_argument("--out", required=True, type=Path)
    made.add_argument("--name", default="provence-mini")
    made.add_argument("--base-name", default="not stated")
    made.add_argument("--base-licence", default="not stated")
    made.add_argument("--recipe", default="", help="the training command and its circumstances, for the card")
    made.add_argument("--table-bits", type=int, choices=[4, 8], default=8, help="bits of an embedding's values")
    made.add_argument("--language", default="English. Other languages are scored, but were not trained for.")
    return made


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(argv)
    sources = [Source.parse(text) for text in arguments.data]
    validation = list(read_questions(arguments.validation))
    figures = bundle(
        load_pruner(arguments.checkpoint),
        arguments.out,
        sources=[Source(source.path, arguments.fusion_limit, source.repeat) for source in sources],
        validation=drawn(validation, 400, arguments.seed),
        hold_out=arguments.hold_out,
        seed=arguments.seed,
        name=arguments.name,
        table_bits=arguments.table_bits,
        unseen=[Source.parse(text) for text in arguments.unseen],
        points_from=arguments.points_from,
    )
    history = arguments.checkpoint / "history.json"
    if history.is_file():
        figures = {"validation": json.loads(history.read_text())[-1], **figures}
    write_card(
        arguments.out,
        base=arguments.base_name,
        licence=arguments.base_licence,
        recipe=arguments.recipe,
        sources=sources,
        figures=figures,
        language=arguments.language,
    )


if __name__ == "__main__":
    main()
