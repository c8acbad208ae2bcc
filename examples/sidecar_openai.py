"""Ask a language model with the openai client through the sidecar, which prunes the passages on the way.

    pip install openai
    CTXPRUNE_UPSTREAM_URL=http://localhost:8000/v1 \\
        uvicorn --factory ctxprune.integrations.server:create_app --port 8080
    python examples/sidecar_openai.py --model my-llm "When is a Flex ticket refunded?"
"""

import argparse
from collections.abc import Sequence

from openai import OpenAI

from ctxprune.data import sample_corpus
from ctxprune.retrievers import BM25Retriever


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("question")
    parser.add_argument("--model", required=True, help="what the upstream calls its model")
    parser.add_argument("--base-url", default="http://localhost:8080/v1", help="of the sidecar")
    parser.add_argument("--api-key", default="none", help="of the upstream")
    arguments = parser.parse_args(argv)

    # any retriever will do; this one searches the sample corpus inside the package
    [documents] = BM25Retriever(sample_corpus()).retrieve([arguments.question], k=5)
    passages = "".join(f"<document>{document.title}\n{document.text}</document>" for document in documents)

    client = OpenAI(base_url=arguments.base_url, api_key=arguments.api_key)
    response = client.chat.completions.with_raw_response.create(
        model=arguments.model,
        messages=[
            {"role": "system", "content": "Answer from the context, in one sentence."},
            {"role": "user", "content": f"<context>{passages}</context>\n{arguments.question}"},
        ],
        extra_body={"ctxprune": {"threshold": 0.1}},  # the upstream never sees this field
    )
    print(response.parse().choices[0].message.content)
    before, after = (response.headers[f"x-ctxprune-tokens-{side}"] for side in ("before", "after"))
    print(f"context: {before} -> {after} tokens")


if __name__ == "__main__":
    main()
