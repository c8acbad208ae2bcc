"""Train a pruner on your own labelled questions, and compress with it.

    pip install 'ctxprune-rag[train]'
    python examples/train_on_my_data.py labelled.jsonl --base microsoft/deberta-v3-base --out runs/mine

A line is {"question", "answers", "documents": [{"text", "is_gold", "answer_spans", "relevant_sentences"}]};
`ctxprune train labels` makes such a file with a language model. Further options go to `ctxprune train provence`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ctxprune import Context, Pipeline, load
from ctxprune.data.questions import read_jsonl
from ctxprune.trainers.provence.train import main as train


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("questions", type=Path)
    parser.add_argument("--base", required=True, help="encoder to start from: a folder or a hub id")
    parser.add_argument("--out", type=Path, default=Path("runs/my-pruner"))
    arguments, further = parser.parse_known_args(argv)

    # the same command goes on with a stopped training
    train(["--base", arguments.base, "--data", str(arguments.questions), "--out", str(arguments.out), *further])

    question = next(read_jsonl(arguments.questions))
    context = Context.of(question.text, [labelled.document for labelled in question.documents])
    [result] = Pipeline([load(str(arguments.out))]).run([context])
    print(f"{question.text}: {result.tokens_before} -> {result.tokens_after} tokens")
    print(result.text)


if __name__ == "__main__":
    main()
