"""A drawing in the client for threads: every action, and the way back when the connection breaks."""

import queue
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

import grpc
import numpy as np
import numpy.typing as npt

from indexer.erasing import Eraser
from indexer.errors import PublicError
from indexer.filters import Filter
from indexer.fusion import EQUAL_WEIGHTS
from indexer.modes import EXACT, Mode
from indexer.sketch import DEFAULT_WIDTH, Stroke, as_float32
from mgrl.v1 import search_pb2
from service.answers import DEFAULT_K, Answer, SearchOptions
from service.base_drawing import BaseDrawing
from service.calls import Points
from service.errors import ServiceError
from service.journal import may_come_back


class ClientDrawing(BaseDrawing):
    """A drawing in progress; one thread at a time. Made by `Client.draw`, opened by `with`.

    Every edit waits for its answer and returns it. `send_strokes` does not wait: of several strokes sent in a row the
    service answers the latest and says how many it skipped. A refused edit raises and the drawing goes on. A connection
    that breaks is sought again, and the drawing goes on where it was.
    """

    def stroke(
        self, points: Points, width: float = DEFAULT_WIDTH, pressure: npt.NDArray[np.float32] | None = None
    ) -> Answer:
        """Draw one stroke: (n, 2) points in canvas units, width in canvas units, pressure 0 to 1 by point.

        Raises:
            SketchError: the stroke cannot be drawn.
        """
        return self.strokes([Stroke(as_float32(points), width, pressure)])

    def strokes(self, strokes: Iterable[Stroke | Points]) -> Answer:
        """Draw several strokes at once; one answer for all."""
        return self.answer(self.send_strokes(strokes))

    def extend(self, points: Points, pressure: npt.ArrayLike | None = None) -> Answer:
        """Make the latest stroke longer: (n, 2) more points, and their pressure if it was begun with pressure.

        Raises:
            SketchError: the latest step drew no stroke, or the points cannot be drawn.
        """
        return self._answered(self._outbox.extend(points, pressure))

    def undo(self, count: int = 1) -> Answer:
        """Take back the latest steps: strokes and erasures."""
        return self._answered(self._outbox.undo(count))

    def redo(self, count: int = 1) -> Answer:
        """Do again what was undone last."""
        return self._answered(self._outbox.redo(count))

    def erase(self, target: Eraser | Iterable[int]) -> Answer:
        """Take strokes off the canvas by number, or cut them where an `indexer.erasing.Eraser` passes.

        Strokes are numbered from 0 as they come to be; `Answer.state` knows the next number.

        Raises:
            SketchError: no such stroke is on the canvas.
        """
        return self._answered(self._outbox.erase(target))

    def options(
        self,
        *,
        k: int = DEFAULT_K,
        weights: Mapping[int, float] = EQUAL_WEIGHTS,
        include_thumbnails: bool = False,
        mode: Mode = EXACT,
        filter: Filter | None = None,
    ) -> Answer:
        """Rank otherwise from now on; what is not given has its default.

        Raises:
            QueryError: an option is out of range, or the filter does not fit the gallery's fields.
        """
        return self._answered(self._outbox.options(SearchOptions(k, weights, include_thumbnails, mode, filter)))

    def clear(self) -> Answer:
        """Empty the canvas, strokes and picture alike."""
        return self._answered(self._outbox.clear())

    def raster(self, image: bytes) -> Answer:
        """Lay a picture (PNG, JPEG, WebP file) under the strokes."""
        return self._answered(self._outbox.raster(image))

    def finish(self) -> Answer:
        """End the drawing; the last answer."""
        return self._answered(self._outbox.finish())

    def send_strokes(self, strokes: Iterable[Stroke | Points]) -> int:
        """Draw without waiting; the sequence number to give to `answer`."""
        return self._send(self._outbox.strokes(strokes))

    def answer(self, sequence: int) -> Answer:
        """The first answer that includes the message with this sequence number.

        Raises:
            PublicError: the message was refused.
            LateError: it was not answered in time.
            ServiceError: the drawing has ended.
        """
        while (answer := self._inbox.answer_to(sequence)) is None:
            self._receive()
        return answer

    def __enter__(self) -> Self:
        self._connect([])
        try:
            self._answered(self._outbox.begin(self._begin))
        except BaseException:
            self._hang_up()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and not self._has_ended and not self._outbox.is_finished:
                self.finish()
        finally:
            self._hang_up()

    def _answered(self, request: search_pb2.DrawRequest) -> Answer:
        return self.answer(self._send(request))

    def _send(self, request: search_pb2.DrawRequest) -> int:
        self._note(request)
        self._unsent.put(request)
        return request.sequence

    def _connect(self, requests: Iterable[search_pb2.DrawRequest]) -> None:
        self._unsent: queue.SimpleQueue[search_pb2.DrawRequest | None] = queue.SimpleQueue()
        for request in requests:
            self._unsent.put(request)
        self._call = self._stub.Draw(_until_none(self._unsent), metadata=self._metadata)

    def _hang_up(self) -> None:
        self._unsent.put(None)  # lets gRPC's sending thread go
        self._call.cancel()

    def _receive(self) -> None:
        self._check_goes_on()
        try:
            self._take()
        except PublicError:
            raise
        except BaseException:
            # Ctrl-C, or a signal's handler: gRPC cannot be asked twice for one answer, so another stream goes on.
            self._hang_up()
            raise

    def _take(self) -> None:
        try:
            if self._call.cancelled():
                self._resume()
            else:
                self._take_in(next(self._call))
        except StopIteration:
            self._has_ended = True
            raise ServiceError("the drawing has ended; begin another") from None
        except grpc.RpcError as error:
            self._come_back(error)

    def _come_back(self, error: grpc.RpcError) -> None:
        """Go on, on another stream.

        Raises:
            PublicError: what ended the drawing for good.
        """
        first = error
        pauses_s = self._pauses()
        while True:
            self._hang_up()
            pause_s = next(pauses_s, None) if may_come_back(error) else None
            if pause_s is None:
                raise self._given_up(first, error) from error
            time.sleep(self._wait_s(pause_s, error))
            try:
                return self._resume()
            except grpc.RpcError as again:
                error = again

    def _resume(self) -> None:
        if (resume := self._journal.resume()) is not None:
            self._connect([resume])
            try:
                while not self._journal.is_taken_up(response := self._take_in(next(self._call))):
                    pass
            except grpc.RpcError as error:
                if not self._journal.is_forgotten(error, self._target):
                    raise
                self._hang_up()
            else:
                for request in self._journal.after(response.sequence):
                    self._unsent.put(request)
                return
        self._connect(self._journal.tell_again())
        self._take_in(next(self._call))


def _until_none(messages: "queue.SimpleQueue[search_pb2.DrawRequest | None]") -> Iterator[search_pb2.DrawRequest]:
    while (request := messages.get()) is not None:
        yield request
