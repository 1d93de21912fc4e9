"""Limit how many requests are in progress, how long they wait, and how much memory they hold."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from pipeline.serving.schema import RejectedError
from pipeline.serving.settings import WAIT_SECONDS, Settings


class Admission:
    """Admit a limited number of requests, let some more wait briefly, and reject the others.

    Parameters
    ----------
    settings : Settings
    wait : float
        Seconds that a request waits for a free slot before it is rejected.
    """

    def __init__(self, settings: Settings, wait: float = WAIT_SECONDS) -> None:
        self._settings = settings
        self._wait = wait
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._waiting = 0
        self._held = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the slots.

        Raises
        ------
        RejectedError
            With status 503 if no slot is free in time.
        """
        if not self._slots.locked():
            await self._slots.acquire()
        elif self._waiting >= 4 * self._settings.max_concurrent:
            raise _busy()
        else:
            self._waiting += 1
            try:
                await asyncio.wait_for(self._slots.acquire(), self._wait)
            except TimeoutError:
                raise _busy() from None
            finally:
                self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytearray]:
        """Read a request's body; the total size of all bodies in memory is limited.

        Raises
        ------
        RejectedError
            With status 413 if the body is too large, 503 if the other bodies take up the memory,
            408 if it arrives too slowly.
        """
        most = self._settings.max_bytes
        body = bytearray()
        held = 0
        try:
            try:
                async with asyncio.timeout(self._settings.max_arrival_seconds):
                    if _content_length(request) > most:
                        await self._reject_large(request)
                    async for chunk in request.stream():
                        if self._held + len(chunk) > self._settings.max_concurrent * most:
                            raise _busy()
                        self._held += len(chunk)
                        held += len(chunk)
                        body += chunk
                        if len(body) > most:
                            await self._reject_large(request)
            except TimeoutError:
                raise RejectedError(408, "The request took too long to arrive.", "slow") from None
            yield body
        finally:
            self._held -= held

    async def _reject_large(self, request: Request) -> None:
        """Reject a body, after reading and discarding it for a while.

        A client that is still sending when the connection closes may never see the answer.
        """
        most = self._settings.max_bytes
        if _content_length(request) <= 5 * most and "expect" not in request.headers:
            discarded = 0
            async for chunk in request.stream():
                discarded += len(chunk)
                if discarded > 5 * most:
                    break
        raise RejectedError(413, self._settings.too_large, "size")


def _busy() -> RejectedError:
    return RejectedError(503, "The service is busy: try again in a moment.", "busy")


def _content_length(request: Request) -> int:
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0
