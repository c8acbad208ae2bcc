"""The REST sidecar: compress and rerank over HTTP, or prune on the way to an OpenAI-compatible API."""

from ctxprune.integrations.server.app import create_app
from ctxprune.integrations.server.settings import Settings

__all__ = ["Settings", "create_app"]
