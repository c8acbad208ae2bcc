"""A lock that an object may hold and still be pickled or copied: the copy gets a fresh one of its own."""

from __future__ import annotations

import threading
from types import TracebackType


class CopiedLock:
    """Use it in a `with` block. What one copy locks, the other does not: each has its own state to guard."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[CopiedLock], tuple[()]]:
        return CopiedLock, ()
