"""Send small pieces of an answer at once, also where the server was given a socket that would hold them back."""

from __future__ import annotations

import socket

from starlette.types import Receive


def send_at_once(receive: Receive) -> None:
    """Set TCP_NODELAY on the connection of this request.

    asyncio sets it for sockets that it makes itself, but not for those that uvicorn binds for several workers or is
    handed: there the first event of a stream would wait for the receipt of the headers, up to 40 ms. ASGI has no name
    for the connection; uvicorn's `receive` belongs to an object that has it. With other servers this does nothing.
    """
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
