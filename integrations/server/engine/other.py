"""The second model, which reads contexts in other scripts than Latin: loaded once, when first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ctxprune.compressors.provence.compressor import shared_model
from ctxprune.compressors.provence.pruner import PrunerModel
from ctxprune.errors import CtxpruneError
from ctxprune.integrations.server.engine.queue import SharedReader
from ctxprune.integrations.server.engine.ticket import AbandonedError, ModelError, Ticket


class OtherReader:
    """source: a model (see `load_model`). share: makes its reader. Safe to use from several threads."""

    def __init__(self, source: str, share: Callable[[PrunerModel], SharedReader]) -> None:
        self.source = source
        self._share = share
        self._reader: SharedReader | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def loaded(self) -> SharedReader | None:
        return self._reader

    def reader(self) -> SharedReader:
        """Loads at the first call. Raises ModelError for a model that cannot be loaded: the operator's fault."""
        with self._lock:
            if self._closed:
                raise AbandonedError("the server stops")
            if self._reader is None:
                try:
                    self._reader = self._share(shared_model(self.source))
                except CtxpruneError as error:
                    raise ModelError("the model for other languages cannot be loaded") from error
            return self._reader

    def for_request(self, ticket: Ticket) -> Callable[[str], PrunerModel]:
        """What opens the model for a compressor of one request."""
        return lambda source: self.reader().for_request(ticket)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._reader is not None:
                self._reader.close()
