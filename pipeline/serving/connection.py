"""Limit how long the header of a request may take to arrive.

uvicorn has no such limit: it waits for the header as long as the connection is open. The time for
the body is limited in :mod:`pipeline.serving.admission`.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http import auto

LATE = b'{"error": "The request took too long to arrive."}'
ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(LATE), LATE)
)


def limit_headers(seconds: float) -> None:
    """Make uvicorn servers created from now on close connections that are too slow.

    Parameters
    ----------
    seconds : float
        Maximum time until the end of the header; counted from the start of the connection, or from
        the first byte of a later request.
    """
    base: Any = auto.AutoHTTPProtocol

    class Limited(base):  # type: ignore[misc]
        """uvicorn's protocol with a timer that runs while no request is in progress."""

        timer: asyncio.TimerHandle | None = None
        begun = False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, self.end)

        def data_received(self, data: bytes) -> None:
            self.begun = True
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self.stop()
            elif self.timer is None:
                self.timer = self.loop.call_later(seconds, self.end)

        def connection_lost(self, error: Exception | None) -> None:
            self.stop()
            super().connection_lost(error)

        def stop(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def end(self) -> None:
            self.timer = None
            if self.transport.is_closing():
                return
            if self.begun and self.cycle is None:  # no request was answered on it yet
                self.transport.write(ANSWER)
            self.transport.close()

    # BentoML leaves uvicorn's protocol at "auto", which stands for this class
    auto.AutoHTTPProtocol = Limited
