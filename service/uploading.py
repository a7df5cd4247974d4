"""What both clients do to store photos: number them, send no further than they may, and read the answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from indexer.errors import ImageError, PublicError
from indexer.metadata import Kind
from indexer.upload import Upload
from mgrl.v1 import gallery_pb2
from service.config_access import MAX_MESSAGE_BYTES
from service.convert_metadata import fields_to_wire, metadata_to_wire
from service.errors import error_from_status


@dataclass(frozen=True)
class UpsertReport:
    """What became of the photos.

    Args:
        stored: how many were added or took the place of another picture.
        unchanged: how many were there already.
        failed: (photo id, reason) of those that could not be stored.
        without_face: how many of those stored are whole, because no face was found to crop them to.
    """

    stored: int
    unchanged: int
    failed: tuple[tuple[str, PublicError], ...]
    without_face: int = 0


class Uploads:
    """One stream of photos, without the stream; for one thread, but that `is_open` may be asked by another.

    Args:
        gallery: its name; empty takes the only one that is served.
        fields: metadata fields that the gallery gets if it lacks them.
    """

    def __init__(self, gallery: str, fields: Mapping[str, Kind]) -> None:
        self.begin = gallery_pb2.UpsertPhotosRequest(
            begin=gallery_pb2.UpsertBegin(gallery=gallery, fields=fields_to_wire(fields))
        )
        self.durable = 0
        """Photos that survive a crash of the service, or have failed."""
        self.failure: Exception | None = None
        """What the caller's own photos raised: gRPC would say it in words of its own."""
        self.has_ended = False
        """Whether the stream is over: whoever waits to send waits no longer."""
        self._sent = self._may_send_through = self._stored = self._unchanged = self._without_face = 0
        self._failed: list[tuple[str, PublicError]] = []

    @property
    def is_open(self) -> bool:
        """Whether the next photo may be sent."""
        return self._sent < self._may_send_through

    def photo(self, upload: Upload) -> gallery_pb2.UpsertPhotosRequest | None:
        """The message for the next photo; None for one that no service takes, which has failed then."""
        photo = gallery_pb2.UpsertPhoto(
            sequence=self._sent + 1,
            photo_id=upload.photo_id,
            image=upload.image,
            metadata=metadata_to_wire(upload.metadata),
            source=upload.source,
        )
        request = gallery_pb2.UpsertPhotosRequest(photo=photo)
        if request.ByteSize() > MAX_MESSAGE_BYTES:
            # Sent, it would end the stream, and with it the photos that come after.
            found = f"the photo has {len(upload.image)} bytes, with all that is said of it at most {MAX_MESSAGE_BYTES}"
            self._failed.append((upload.photo_id, ImageError(f"{found} may be sent; scale it down")))
            return None
        self._sent += 1
        return request

    def take(self, response: gallery_pb2.UpsertPhotosResponse) -> None:
        """Read an answer."""
        self.durable, self._may_send_through = response.durable_through, response.may_send_through
        self._stored, self._unchanged = response.stored, response.unchanged
        self._without_face = response.without_face
        self._failed += [(failure.photo_id, error_from_status(failure.error)) for failure in response.failures]

    def report(self) -> UpsertReport:
        """What became of all photos so far."""
        return UpsertReport(self._stored, self._unchanged, tuple(self._failed), self._without_face)
