"""What was pruned, whole, for a while, under a name that cannot be guessed."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

#: Bytes of all originals, and seconds that each is kept.
BYTES, SECONDS = 64_000_000, 3600.0


class Originals:
    """The last texts up to `limit` bytes; the oldest go first. clock: seconds, never going back."""

    def __init__(
        self, limit: int = BYTES, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit, self.seconds, self.clock = limit, seconds, clock
        self._texts: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()
        # without it whoever has a text of someone else's could learn that it was pruned here
        self._secret = secrets.token_bytes(16)

    def put(self, text: str) -> str:
        """The name to ask for it by, 24 hexadecimal digits; "" for a text that is larger than the limit."""
        encoded = text.encode("utf-8", "surrogatepass")
        name = hashlib.blake2b(encoded, digest_size=12, key=self._secret).hexdigest()
        weight = 4 * len(text)
        if weight > self.limit:
            return ""
        with self._lock:
            self._drop(name)
            self._texts[name] = self.clock(), text
            self._weight += weight
            while self._weight > self.limit:
                self._drop(next(iter(self._texts)))
        return name

    def get(self, name: str) -> str | None:
        """The text; None for a name that is unknown or too old."""
        with self._lock:
            found = self._texts.get(name)
            if found is not None and self.clock() - found[0] > self.seconds:
                self._drop(name)
                found = None
        return None if found is None else found[1]

    def _drop(self, name: str) -> None:
        if name in self._texts:
            self._weight -= 4 * len(self._texts.pop(name)[1])
