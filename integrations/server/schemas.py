"""The bodies of the routes that compress, rank and highlight, as OpenAPI shows them.

Unknown fields, NaN and wrong types are refused where no other vendor's clients send them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    JsonValue,
    Tag,
    model_validator,
)

from ctxprune.calibration import PointName
from ctxprune.integrations.numbers import WHOLE
from ctxprune.integrations.server.json_types import AnyName, AnyObject, AnyQuestion, AnyText, Protected, Question
from ctxprune.integrations.server.lenient import LENIENT, Lenient
from ctxprune.select import OnEmpty, Order
from ctxprune.text import UnitKind
from ctxprune.types import Document

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
MAX_TOKENS = 100_000_000
MAX_PATTERNS = 32
Count = Annotated[int, Field(ge=1, le=MAX_TOKENS), WHOLE]

EXAMPLE: dict[str, Any] = {
    "query": "When was the Harrow Bridge opened?",
    "documents": [
        {
            "id": "b7",
            "title": "Harrow Bridge",
            "text": "The bridge is of granite. It was opened in 1911. Swallows nest under it.",
            "metadata": {"source": "guide.pdf"},
        },
        "The ferry runs every hour. Bicycles travel free.",
    ],
    "threshold": 0.1,
}


class DocumentIn(BaseModel):
    """A passage as the retriever gave it."""

    model_config = STRICT
    text: AnyText
    id: AnyName | None = Field(default=None, description="Comes back as a text.")
    title: AnyText | None = Field(
        default=None, description="Read as the passage's first sentence, and put before its text."
    )
    metadata: AnyObject | None = Field(default=None, description="Comes back as it went in.")

    def document(self) -> Document:
        return Document(self.text, id=self.id or "", title=self.title or "", metadata=self.metadata or {})


def _kind(value: Any) -> str:
    return "as_text" if isinstance(value, str) else "as_object"


AnyDocument = Annotated[
    Annotated[AnyText, Tag("as_text")] | Annotated[DocumentIn, Tag("as_object")], Discriminator(_kind)
]


class Options(BaseModel):
    """How to compress; with none of threshold, operating_point, rate, budget, top_p and gap the compressor's own
    threshold holds."""

    model_config = STRICT
    compressor: str | None = Field(
        default=None, min_length=1, description="One of GET /v1/compressors; by default the server's."
    )
    threshold: float | None = Field(default=None, ge=0, le=1, description="Keep what scores at least this.")
    operating_point: PointName | None = Field(
        default=None, description="In place of a threshold: one calibrated with the model, for contexts of this size."
    )
    rate: float | None = Field(default=None, gt=0, le=1, description="Keep at most floor(rate * tokens_before) tokens.")
    budget: Annotated[int, Field(gt=0, le=MAX_TOKENS), WHOLE] | None = Field(
        default=None, description="Keep at most so many tokens in all."
    )
    tokenizer: str | None = Field(
        default="default", min_length=1, description="What counts tokens; GET /info lists the choices."
    )
    protect: list[Protected] | None = Field(
        default=None,
        max_length=MAX_PATTERNS,
        description="Regular expressions as RE2 takes them; a sentence that one touches is kept.",
    )
    keep_title: bool | None = Field(default=None, description="Give the titles of kept documents too (default: yes).")
    min_keep: Annotated[int, Field(ge=0, le=MAX_TOKENS), WHOLE] | None = Field(
        default=None, description="Keep at least so many sentences."
    )
    floor: float | None = Field(
        default=None, ge=0, le=1, description="What scores less does not fill up a budget; 0: all may."
    )
    empty_below: float | None = Field(
        default=None, ge=0, le=1, description="Keep nothing where the best sentence scores less: no answer is there."
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Keep the fewest sentences that hold this share of all scores."
    )
    gap: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="[least, most]: keep so many sentences, down to the largest drop of the scores."
    )
    companions: bool | None = Field(
        default=None, description="Keep what a kept sentence cannot be read without (default: as the compressor does)."
    )
    repeats: bool | None = Field(
        default=None,
        description="Keep what overlapping documents share in each of them (default: as the compressor does).",
    )
    on_empty: OnEmpty | None = Field(default=None, description="What to do when nothing passes the threshold.")
    order: Order | None = Field(default=None, description="Documents as they came, or the most relevant first.")
    language: str | None = Field(
        default=None, max_length=35, description="Of the documents, e.g. de or pt-BR; by default each one's is guessed."
    )
    units: UnitKind | None = Field(
        default=None, description="What to choose among; by default sentences, or records where the text is records."
    )
    elision: str | None = Field(
        default=None, max_length=100, description='What stands between kept stretches, as "[...]"; by default nothing.'
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.budget is not None and self.rate is not None:
            raise ValueError("give budget or rate, not both")
        if self.threshold is not None and self.operating_point is not None:
            raise ValueError("give threshold or operating_point, not both")
        return self


class CompressRequest(Options):
    """A question and what was retrieved for it."""

    model_config = ConfigDict(**STRICT, json_schema_extra={"examples": [EXAMPLE]})
    query: AnyQuestion
    documents: Annotated[list[AnyDocument], FailFast()]
    return_spans: bool | None = Field(
        default=True, description="Give the offsets and scores of kept and removed sentences."
    )
    return_html: bool | None = Field(
        default=False, description="Give a fragment of HTML that shows kept and removed text."
    )


class BatchRequest(BaseModel):
    """Several questions, each with its own documents and options; answered in order."""

    model_config = ConfigDict(**STRICT, json_schema_extra={"examples": [{"requests": [EXAMPLE]}]})
    requests: Annotated[list[CompressRequest], FailFast()] = Field(min_length=1)


class SpanOut(BaseModel):
    """Half-open offsets into the document's text, in Unicode code points. score: null when it is not finite."""

    start: int
    end: int
    score: float | None


class DocumentOut(BaseModel):
    """What is left of one document. Summaries have `sources` instead of spans."""

    model_config = ConfigDict(extra="allow")
    index: int = Field(description="Its place in the request.")
    id: str
    title: str
    text: str = Field(description="Kept slices of the text; where something was removed, a line break or a space.")
    score: float | None = Field(description="Relevance to the question.")
    dropped: bool
    sentences: int = Field(description="Units that were scored: sentences, or words for compressors that cut words.")
    kept_spans: list[SpanOut] | None = None
    removed_spans: list[SpanOut] | None = None
    metadata: dict[str, JsonValue] | None = None


class SecondsOut(BaseModel):
    """queue: the wait for the model; infer: from the model's first turn to its last; total: all of it."""

    queue: float
    tokenize: float
    infer: float
    select: float
    total: float


class CompressResponse(BaseModel):
    """What goes into the prompt, and what was done."""

    query: str
    compressor: str
    model: str | None = Field(default=None, description="Which scored, where the compressor chooses among several.")
    status: Literal["compressed", "passthrough", "degraded"]
    reason: str | None = Field(default=None, description="Why nothing was removed, or what failed.")
    documents: list[DocumentOut]
    text: str = Field(description="What goes into the prompt, all documents joined.")
    tokens_before: int
    tokens_after: int
    tokenizer: str
    exact: bool = Field(description="False when the tokenizer only estimates the generator's.")
    budget: int | None = None
    over_budget: bool | None = None
    warnings: list[str] | None = Field(
        default=None,
        description="What had to be given up: an emptied context, an unused or exceeded budget, a cut question.",
    )
    seconds: SecondsOut
    html: str | None = None


class BatchResponse(BaseModel):
    results: list[CompressResponse]


class EstimateResponse(BaseModel):
    """A dry run: nothing was read by a model."""

    compressor: str
    documents: int
    tokens_before: int
    tokenizer: str
    exact: bool
    budget: int | None = Field(description="The tokens that would be kept at most; null when by threshold alone.")
    model_tokens: int = Field(description="Tokens that the model would read, about.")
    cached_documents: int = Field(description="Documents of which the model's scores are already known.")
    accepted: bool = Field(description="False when the request is larger than the server takes.")


class CompressorOut(BaseModel):
    name: str
    description: str
    loaded: bool = Field(description="False: the first request that names it waits for its model.")
    threshold: float | None = Field(description="The default; null when a budget or rate must be given, or not loaded.")
    needs_query: bool | None = Field(description="Null while it is not loaded.")
    default: bool


class CompressorsResponse(BaseModel):
    compressors: list[CompressorOut]


class LimitsOut(BaseModel):
    body_bytes: int
    documents: int
    batch: int
    requests_in_flight: int
    tokens_in_flight: int
    units_in_flight: int = Field(description="Sentences, about.")
    caller_share: float = Field(description="What one caller may hold of requests, tokens and units in flight.")
    deadline_seconds: float


class InfoResponse(BaseModel):
    """What this server is and takes."""

    name: str
    version: str
    model: str
    device: str
    default_compressor: str
    compressors: list[str]
    tokenizers: list[str]
    proxy: bool = Field(description="Whether an upstream is configured.")
    limits: LimitsOut


class TextOut(BaseModel):
    text: str


class RankOut(BaseModel):
    index: int
    relevance_score: float
    document: TextOut | None = None
    pruned_text: str | None = None


class JinaUsage(BaseModel):
    total_tokens: int
    prompt_tokens: int


class JinaResponse(BaseModel):
    model: str
    object: str = "list"
    usage: JinaUsage
    results: list[RankOut]
    warnings: list[str] | None = Field(default=None, description="Names the parameters that nobody read.")


class CohereResponse(BaseModel):
    id: str
    results: list[RankOut]
    meta: dict[str, Any]


class TeiRank(BaseModel):
    index: int
    score: float
    text: str | None = None
    pruned_text: str | None = None


Tags = Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=16)]


class HighlightRequest(Lenient):
    """A question and the texts that were found for it; the first of the tags are those that are used."""

    model_config = ConfigDict(
        **LENIENT,
        json_schema_extra={
            "examples": [
                {
                    "query": "When was the bridge opened?",
                    "documents": ["It was opened in 1911. Swallows nest under it."],
                    "pre_tags": ["<em>"],
                    "post_tags": ["</em>"],
                }
            ]
        },
    )
    query: Question
    documents: Annotated[list[AnyDocument], FailFast()]
    pre_tags: Tags | None = Field(default=None, description='Before a sentence; by default ["<em>"].')
    post_tags: Tags | None = Field(default=None, description='After a sentence; by default ["</em>"].')
    threshold: float | None = Field(default=None, ge=0, le=1, description="Highlight what scores at least this.")
    highlight_only: bool | None = Field(default=False, description="Leave the whole text out of the answer.")
    encoder: Literal["default", "html"] | None = Field(
        default="default", description="html: the text between the tags is escaped, for pages that show it."
    )
    number_of_fragments: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        default=None, description="The best so many of each text, in order."
    )
    language: str | None = Field(default=None, max_length=35)


class HighlightOut(BaseModel):
    """fragments: the highlighted sentences in their tags; offsets count code points of the document's text."""

    index: int
    id: str
    score: float | None = Field(description="Relevance of the whole text.")
    fragments: list[str]
    scores: list[float]
    offsets: list[tuple[int, int]]
    text: str | None = Field(default=None, description="All of the text, the sentences in their tags.")


class HighlightResponse(BaseModel):
    results: list[HighlightOut]


class StatusResponse(BaseModel):
    """scores: of `/readyz`: off, no reference, collecting, as expected, or drifted (see `drift_window`)."""

    status: str
    scores: str | None = None


class ErrorResponse(BaseModel):
    """error_type: Validation, Unauthorized, Overloaded, Unhealthy, Backend, Timeout, NotFound or Internal."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"error": "query: Field required", "error_type": "Validation"}]}
    )
    error: str
    error_type: str


class OpenAIErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorResponse(BaseModel):
    """Errors of the proxy's routes, as OpenAI clients read them."""

    error: OpenAIErrorDetail


class AnthropicErrorDetail(BaseModel):
    type: str
    message: str


class AnthropicErrorResponse(BaseModel):
    """Errors of the proxy's route for Anthropic clients, as they read them."""

    type: Literal["error"]
    error: AnthropicErrorDetail
