"""A LangChain RAG chain over a folder, answered with and without pruning what was retrieved.

    python examples/langchain_rag.py --generator Qwen/Qwen2.5-0.5B-Instruct
    python examples/langchain_rag.py --generator models/my-llm --corpus notes/ -q "When is a Flex ticket refunded?"

Without --corpus it searches the sample corpus that ships with ctxprune. Prints each question with both answers and the
tokens of both prompts, counted by the generator's tokenizer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from ctxprune import load_counter
from ctxprune.data import sample_corpus, sample_questions
from ctxprune.data.corpus import read_corpus
from ctxprune.generators import LocalGenerator
from ctxprune.integrations.langchain import CtxPruneCompressor, joined
from ctxprune.retrievers import BM25Retriever

PROMPT = PromptTemplate.from_template("{context}\n\nAnswer in a few words.\nQuestion: {question}\nAnswer:")


class Search(BaseRetriever):
    """Our BM25 search as a LangChain retriever; any other LangChain retriever would do."""

    index: Any
    k: int = 5

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        [found] = self.index.retrieve([query], self.k)
        return [Document(each.text, id=each.id, metadata={"title": each.title, "score": each.score}) for each in found]


def rag_chain(
    retriever: BaseRetriever, generator: LocalGenerator, prune: Runnable[Any, Any], *, max_new_tokens: int
) -> Runnable[str, Any]:
    """A question in; a mapping with "documents", "prompt" and "answer" out."""
    answer = RunnableLambda(lambda inputs: generator.generate([inputs["prompt"]], max_new_tokens=max_new_tokens)[0])
    prompt = PROMPT | (lambda value: value.to_string())
    return (
        {"question": RunnablePassthrough(), "documents": retriever}
        | prune
        | RunnablePassthrough.assign(prompt=prompt)
        | RunnablePassthrough.assign(answer=answer)
    )


def whole(inputs: dict[str, Any]) -> dict[str, Any]:
    """What stands in for pruning in the chain that does without."""
    return {**inputs, "context": joined(inputs["documents"])}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", required=True, help="folder or hub id of a causal language model")
    parser.add_argument("--corpus", type=Path, help="folder of .md, .txt and .jsonl files (default: the sample corpus)")
    parser.add_argument("-q", "--question", action="append", help="may be given several times")
    parser.add_argument("-k", type=int, default=5, help="documents to retrieve (default: 5)")
    parser.add_argument("--threshold", type=float, default=0.1, help="keep sentences that score this (default: 0.1)")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="of an answer (default: 32)")
    options = parser.parse_args(argv)
    if options.corpus and not options.question:
        parser.error("a corpus of your own needs a question: -q")

    documents = list(read_corpus(options.corpus)) if options.corpus else sample_corpus()
    retriever = Search(index=BM25Retriever(documents), k=options.k)
    generator, counter = LocalGenerator(options.generator), load_counter(options.generator)
    pruning = CtxPruneCompressor(threshold=options.threshold, drop_empty=True)
    chains = {
        name: rag_chain(retriever, generator, prune, max_new_tokens=options.max_new_tokens)
        for name, prune in (("whole", RunnableLambda(whole)), ("pruned", pruning))
    }
    for question in options.question or [each.question for each in sample_questions()[::40]]:
        print(question)
        for name, chain in chains.items():
            result = chain.invoke(question)
            [tokens] = counter.count([result["prompt"]])
            print(f"  {name:6} {len(result['documents'])} documents, {tokens:5,} tokens: {result['answer']}")


if __name__ == "__main__":
    main()
