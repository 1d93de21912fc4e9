"""How long a connection may take to say what it wants.

uvicorn waits for the header of a first request as long as the connection lasts, and offers no
limit; the body is limited in :mod:`pipeline.serving.api`.
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
    """Have servers that uvicorn is asked for from now on close connections that take longer.

    Parameters
    ----------
    seconds : float
        From the connection, or from the first byte of a later request, to the end of its header.
    """
    base: Any = auto.AutoHTTPProtocol

    class Limited(base):  # type: ignore[misc]
        """uvicorn's protocol with a timer; it runs while there is no request in progress."""

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
            if self.begun and self.cycle is None:  # nothing was answered on it yet
                self.transport.write(ANSWER)
            self.transport.close()

    # "auto" is what BentoML leaves uvicorn's configuration at, and this is what it stands for
    auto.AutoHTTPProtocol = Limited
