"""What every action of a `Draw` message does to a drawing; large ones are read beside the event loop."""

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from indexer.erasing import erase
from indexer.errors import QueryError, SketchError, blaming
from indexer.filters import check_fields
from indexer.gallery import Gallery
from indexer.sketch import MAX_STROKES, read_raster
from mgrl.v1 import search_pb2
from service.answers import SearchOptions
from service.convert import eraser_from_wire, extension_from_wire, options_from_wire, strokes_from_wire
from service.drawing import Drawing
from service.workers import Workers

T = TypeVar("T")

_INLINE_BYTES: Final = 64 * 1024
"""Strokes up to this size are read on the event loop, in under 2 ms; larger messages go to the reading thread."""


async def apply(request: search_pb2.DrawRequest, drawing: Drawing, workers: Workers) -> bool:
    """Change the drawing as the message says; one that is refused changes nothing.

    Returns:
        Whether there was something to change; `finish` changes nothing.

    Raises:
        QueryError: no action, `begin`, or options out of range.
        SketchError: what cannot be drawn, erased, undone or done again.
    """
    action = request.WhichOneof("action")
    with blaming(action or "action"):
        match action:
            case "strokes":
                drawing.add(await _read(request, partial(strokes_from_wire, request.strokes.strokes), workers))
            case "extend":
                drawing.extend(*extension_from_wire(request.extend))
            case "undo":
                drawing.undo(request.undo.count if request.undo.HasField("count") else 1)
            case "redo":
                drawing.redo(request.redo.count if request.redo.HasField("count") else 1)
            case "erase":
                await _erase(request.erase, drawing, workers)
            case "clear":
                drawing.clear()
            case "raster":
                decode = partial(read_raster, request.raster.image, drawing.size_px)
                drawing.put_raster(await workers.read(decode))
            case "options":
                drawing.set_options(await workers.read(partial(options_for, drawing.gallery, request.options)))
            case "finish":
                return False
            case "begin" | "resume":
                raise QueryError(f"`{action}` must be the first message of a drawing only; open another stream")
            case _:
                raise QueryError("a message must hold one action, such as strokes or finish; this one holds nothing")
    return True


def options_for(gallery: Gallery, message: search_pb2.SearchOptions) -> SearchOptions:
    """Checked options, whose filter fits the gallery; a filter may be long: read it beside the event loop.

    Raises:
        QueryError: an option is out of range, or the filter does not fit.
    """
    options = options_from_wire(message)
    if options.filter is not None:
        with blaming("filter"):
            check_fields(options.filter, gallery.fields)
    return options


async def _read(request: search_pb2.DrawRequest, read: Callable[[], T], workers: Workers) -> T:
    return read() if request.ByteSize() <= _INLINE_BYTES else await workers.read(read)


async def _erase(message: search_pb2.DrawErase, drawing: Drawing, workers: Workers) -> None:
    target = message.WhichOneof("target")
    with blaming(target or "target"):
        match target:
            case "strokes":
                numbers = message.strokes.numbers
                if not 1 <= len(numbers) <= MAX_STROKES:
                    raise SketchError(
                        f"erasing takes 1 to {MAX_STROKES} stroke numbers, got {len(numbers)}", field="numbers"
                    )
                drawing.erase(dict.fromkeys(numbers, ()))
            case "path":
                eraser = eraser_from_wire(message.path)
                drawing.erase(await workers.read(partial(erase, drawing.strokes(), eraser)))
            case _:
                raise SketchError("erasing needs stroke numbers or an eraser's path, got neither")
