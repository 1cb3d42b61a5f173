"""A connection that stays, as one message on it sees it: what it follows, and the streams it opened."""

from typing import TypeVar

from paddock.contracts import errors
from paddock.contracts.api import base
from paddock.gateway import streams, subscriptions

AnswerT = TypeVar("AnswerT", bound=base.Result)


class Session:
    """Made for each message; what a message begins starts when its own answer was sent."""

    __slots__ = ("_opened", "_request_id", "streams", "subscriptions")

    def __init__(
        self, follows: subscriptions.Subscriptions, carries: streams.Streams, request_id: str
    ) -> None:
        """Make one.

        Args:
            follows: The connection's subscriptions.
            carries: Its streams.
            request_id: Of the message, for the log.
        """
        self.subscriptions, self.streams = follows, carries
        self._request_id = request_id
        self._opened: list[streams.AnyStream] = []

    async def open(self, work: streams.Work[AnswerT], *, method: str) -> AnswerT:
        """Open a stream and wait until it is open.

        Args:
            work: Serves it.
            method: What was asked, for the log.

        Raises:
            errors.Fault: It could not be opened.
        """
        stream = self.streams.add(work, method=method, request_id=self._request_id)
        self._opened.append(stream)
        answer = await stream.answer
        if isinstance(answer, errors.Fault):
            raise answer
        return answer

    def begin(self) -> None:
        """The answer was sent: what it told of may begin."""
        self.subscriptions.begin()
        for stream in self._opened:
            stream.begin()
