"""A typed client of the REST sidecar, for programs that do not load a model themselves; needs only httpx2."""

from ctxprune.integrations.client.calls import CompressOptions, CompressRequest
from ctxprune.integrations.client.client import AsyncClient, Client
from ctxprune.integrations.client.results import (
    Compressed,
    CompressedDocument,
    CompressorInfo,
    Estimate,
    Limits,
    NoAnswerError,
    OverloadedError,
    Ranked,
    RefusedError,
    ServerInfo,
    ServerSpan,
    SidecarError,
    SidecarFailedError,
    UnauthorizedError,
)

__all__ = [
    "AsyncClient",
    "Client",
    "CompressOptions",
    "CompressRequest",
    "Compressed",
    "CompressedDocument",
    "CompressorInfo",
    "Estimate",
    "Limits",
    "NoAnswerError",
    "OverloadedError",
    "Ranked",
    "RefusedError",
    "ServerInfo",
    "ServerSpan",
    "SidecarError",
    "SidecarFailedError",
    "UnauthorizedError",
]
