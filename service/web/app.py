"""The sketchpad's addresses: the page, its drawing socket, galleries, photos, and the cleaning of a scan."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from indexer.errors import PublicError, SketchError, UnknownPhotoError
from indexer.metadata import to_json
from indexer.scan import MAX_SCAN_BYTES, clean_scan
from service.async_client import AsyncClient
from service.calls import PhotoInfo
from service.errors import ServiceError, UnknownGalleryError
from service.web.bridge import carry_drawing
from service.web.guard import Guard

PAGE: Final = Path(__file__).parent / "page"

_THUMBNAIL_AGE_S: Final = 300
"""Rankings show the same photos over and over; a deleted one is gone from the browser after this long."""


def build_app(client: AsyncClient, hosts: Sequence[str]) -> Starlette:
    """The page and its bridge.

    Args:
        client: of the service, made on the event loop that serves the page.
        hosts: HOST:PORT by which the page may be opened.
    """
    routes = [
        Route("/api/galleries", _galleries),
        Route("/api/photo", _photo),
        Route("/api/thumbnail", _thumbnail),
        Route("/api/scan", _scan, methods=["POST"]),
        WebSocketRoute("/api/draw", _draw),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={PublicError: _refused, ClientDisconnect: _unheard},
    )
    app.state.client = client
    # A scan of 64 megapixels takes 200 MB and a core for a second.
    app.state.scanning = asyncio.Semaphore(1)
    return app


async def _galleries(request: Request) -> Response:
    galleries = await request.app.state.client.galleries()
    return JSONResponse(
        [{"name": found.name, "photos": found.photos, "fields": dict(found.fields)} for found in galleries]
    )


async def _photo(request: Request) -> Response:
    found = await _asked_photo(request)
    known = to_json(found.metadata)
    return JSONResponse({"photo_id": found.photo_id, "source": found.source, "metadata": known})


async def _thumbnail(request: Request) -> Response:
    found = await _asked_photo(request)
    if not found.thumbnail:
        raise UnknownPhotoError("this photo has no thumbnail")
    headers = {"Cache-Control": f"private, max-age={_THUMBNAIL_AGE_S}"}
    return Response(found.thumbnail, media_type="image/jpeg", headers=headers)


async def _asked_photo(request: Request) -> PhotoInfo:
    asked = request.query_params
    client: AsyncClient = request.app.state.client
    return await client.photo(asked.get("gallery", ""), asked.get("id", ""))


async def _scan(request: Request) -> Response:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MAX_SCAN_BYTES:
            raise SketchError(f"a scan may have {MAX_SCAN_BYTES >> 20} MiB; scale it down")
    async with request.app.state.scanning:
        return Response(await asyncio.to_thread(clean_scan, bytes(data)), media_type="image/png")


async def _draw(socket: WebSocket) -> None:
    await carry_drawing(socket, socket.app.state.client)


async def _refused(_: Request, error: Exception) -> Response:
    status = 400
    if isinstance(error, UnknownPhotoError | UnknownGalleryError):
        status = 404
    elif isinstance(error, ServiceError):
        status = 503
    return JSONResponse({"message": str(error)}, status)


async def _unheard(_: Request, __: Exception) -> Response:
    """A tab that is closed or loaded anew while it sends a scan is no fault to report."""
    return Response(status_code=400)
