"""The servicer of searches: wire types in, wire types out, and nothing else. Galleries: `service.cataloguing`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

import grpc

from indexer.errors import QueryError, blaming
from indexer.gallery import Gallery
from indexer.sketch import read_raster
from mgrl.v1 import search_pb2, search_pb2_grpc
from service.answers import Answer
from service.auth.callers import current_call
from service.convert import answer_to_draw_result, answer_to_search_response, episode_from_wire, strokes_from_wire
from service.drawing import Drawing, give_up_if
from service.edits import options_for
from service.engine import Engine
from service.errors import ServiceError, public_errors, status_of
from service.galleries import Galleries
from service.patience import FIRST_MESSAGE_S, first_message
from service.resumption import Ongoing, Resumption
from service.session import DrawSession
from service.telemetry import Telemetry
from service.workers import Workers, abandoned_on_exit

Context = grpc.aio.ServicerContext[Any, Any]


class SketchSearchServicer(search_pb2_grpc.SketchSearchServiceServicer):
    """Ranks photos for sketches and drawings."""

    def __init__(
        self, galleries: Galleries, engine: Engine, workers: Workers, telemetry: Telemetry, idle_timeout_s: float
    ) -> None:
        self._galleries = galleries
        self._engine = engine
        self._workers = workers
        self._admission = workers.admission
        self._telemetry = telemetry
        self._idle_timeout_s = idle_timeout_s
        self._resumption = Resumption()
        self._calls: set[asyncio.Task[Any]] = set()
        self._sessions: set[DrawSession] = set()

    async def Search(self, request: search_pb2.SearchRequest, context: Context) -> search_pb2.SearchResponse:
        async with public_errors(context):
            with self._counted(), abandoned_on_exit() as abandoned:
                began, gallery = time.perf_counter(), self._galleries.find(request.gallery)
                self._admission.check_wait()
                answer = await self._workers.rank(partial(self._search, request, gallery, abandoned.is_set))
                self._telemetry.answered(gallery.name, began, answer.timings)
                return answer_to_search_response(answer)
        raise AssertionError("public_errors ends the call")

    async def Draw(
        self, requests: AsyncIterator[search_pb2.DrawRequest], context: Context
    ) -> AsyncIterator[search_pb2.DrawResponse]:
        async with public_errors(context):
            first = await self._first(requests)
            # Not before: a client that writes into a call which has been refused hears of an internal error.
            with self._counted(), self._admission.drawing() as seat:
                session = await self._open(first)
                self._sessions.add(session)
                try:
                    async with aclosing(session.answers(requests)) as responses:
                        async for response in responses:
                            if response.HasField("result"):
                                self._admission.drew(seat)
                            yield response
                finally:
                    session.close()
                    self._sessions.discard(session)

    async def Replay(
        self, request: search_pb2.ReplayRequest, context: Context
    ) -> AsyncIterator[search_pb2.ReplayResponse]:
        async with public_errors(context):
            with self._counted(), abandoned_on_exit() as abandoned:
                gallery = self._galleries.find(request.gallery)
                self._admission.check_wait()
                with blaming("options"):
                    options = await self._workers.read(partial(options_for, gallery, request.options))
                episode = await self._workers.read(partial(episode_from_wire, request))
                drawing = Drawing(gallery, self._engine, options)
                for stage in range(episode.stages):
                    drawing.add(episode.added_at(stage))
                    yield await self._replayed(stage, drawing, abandoned.is_set)

    async def _replayed(
        self, stage: int, drawing: Drawing, is_abandoned: Callable[[], bool]
    ) -> search_pb2.ReplayResponse:
        began = time.perf_counter()
        try:
            answer = await self._workers.rank(partial(drawing.rank, drawing.snapshot(), is_abandoned))
        except Exception as error:  # one stage fails, the replay goes on, as a drawing does
            return search_pb2.ReplayResponse(stage=stage, error=status_of(error))
        self._telemetry.answered(drawing.gallery.name, began, answer.timings)
        return search_pb2.ReplayResponse(stage=stage, result=answer_to_draw_result(answer))

    async def drain(self, grace_s: float) -> None:
        """Wait for the calls in progress; drawings that are still open after `grace_s` seconds are ended."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace_s)
        for session in self._sessions:
            session.end(
                ServiceError("the service is stopping; send the drawing again to another one", retry_after_s=1.0)
            )
        if self._calls:
            await asyncio.wait(self._calls, timeout=1.0)
        self._resumption.close()

    async def _first(self, requests: AsyncIterator[search_pb2.DrawRequest]) -> search_pb2.DrawRequest:
        request = await first_message(requests, "a drawing", min(FIRST_MESSAGE_S, self._idle_timeout_s))
        if request is None or request.WhichOneof("action") not in ("begin", "resume"):
            raise QueryError("the first message of a drawing must be `begin` or `resume`", field="action")
        return request

    async def _open(self, request: search_pb2.DrawRequest) -> DrawSession:
        """The session of a drawing that begins or goes on, which has the drawing from now on."""
        if request.HasField("resume"):
            with blaming("resume"):
                ongoing, answered = self._resumption.find(request.resume.token), request.resume.answered
            self._galleries.find(ongoing.drawing.gallery.name)  # the caller may use it, still
            if (call := current_call()) is not None:
                call.purpose = ongoing.purpose
            ongoing.drawing.tell_canvas()
        else:
            ongoing, answered = Ongoing(await self._begin(request), request.sequence), 0
        session = DrawSession(ongoing, answered, self._resumption, self._workers, self._telemetry, self._idle_timeout_s)
        self._resumption.put(ongoing, session)
        return session

    async def _begin(self, request: search_pb2.DrawRequest) -> Drawing:
        if request.sequence < 1:
            raise QueryError(f"sequence numbers must be 1 or more, got {request.sequence}", field="sequence")
        gallery = self._galleries.find(request.begin.gallery)
        with blaming("begin.options"):
            options = await self._workers.read(partial(options_for, gallery, request.begin.options))
        return Drawing(gallery, self._engine, options, request.begin.include_canvas, self._galleries.latest)

    def _search(self, request: search_pb2.SearchRequest, gallery: Gallery, is_abandoned: Callable[[], bool]) -> Answer:
        with blaming("options"):
            drawing = Drawing(gallery, self._engine, options_for(gallery, request.options))
        sketch = request.WhichOneof("sketch")
        with self._engine.slot, blaming(sketch or "sketch"):  # a picture may take 64 MB while it is decoded
            give_up_if(is_abandoned)
            match sketch:
                case "strokes" if request.strokes.strokes:
                    drawing.add(strokes_from_wire(request.strokes.strokes))
                case "strokes":
                    pass  # an empty canvas is a sketch too; its answer says so
                case "raster":
                    drawing.put_raster(read_raster(request.raster.image, drawing.size_px))
                case _:
                    raise QueryError("a search must hold strokes or a raster, this one holds neither")
        return drawing.rank(is_abandoned=is_abandoned)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            yield
        finally:
            self._calls.discard(task)
