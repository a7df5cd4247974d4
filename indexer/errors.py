"""Every error that a caller of this project can meet.

A message says what must hold, what was found and what to do. `PublicError` messages are written for the outside:
they never hold a path of the server or a traceback, so the service may send them over the wire.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class PublicError(Exception):
    """What a caller did, or asked for, cannot be done; the message says why and names the way out.

    Args:
        message: for the caller.
        field: path of what is wrong in what the caller gave, such as `options.k`; empty where no field is to blame.
        retry_after_s: seconds after which the same may succeed; 0 where waiting does not help.
    """

    def __init__(self, message: str = "", *, field: str = "", retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.field = field
        self.retry_after_s = retry_after_s


class ShapeError(PublicError):
    """Arrays disagree on photos, regions or dimension."""


class SketchError(PublicError):
    """A stroke or a raster sketch that cannot be drawn: NaN, out of range, too large, unreadable."""


class ImageError(PublicError):
    """A photo that cannot be read: truncated, not an image, too large."""


class QueryError(PublicError):
    """A search whose options make no sense: k below 1, negative weights."""


class GalleryError(PublicError):
    """A gallery that cannot be opened: no gallery there, wrong version, damaged."""


class ModelMismatchError(GalleryError):
    """The gallery's embeddings were made by another model than the one at hand."""


class GalleryHeldError(GalleryError):
    """Another process writes the gallery; the same succeeds when that has ended."""


class StaleSnapshotError(GalleryError):
    """The gallery was compacted while a snapshot of it was read, and its files are gone; take another snapshot."""


class UnknownPhotoError(PublicError):
    """No photo with this id in this gallery."""


class DataError(PublicError):
    """Training or evaluation data that is missing or malformed."""


class ModelError(PublicError):
    """An encoder file that is missing, is no encoder, or does not fit its card."""


class ConfigError(PublicError):
    """A setting out of range, unknown, or in conflict with another."""


def unknown_photo(gallery: str, photo_id: str) -> UnknownPhotoError:
    """The error for an id that a gallery does not have."""
    return UnknownPhotoError(f"gallery {gallery} has no photo {photo_id[:100]!r}")


@contextmanager
def blaming(field: str) -> Iterator[None]:
    """Errors that are raised inside are about this field; the fields they name themselves lie in it.

    Example:
        >>> try:
        ...     with blaming("strokes[3]"):
        ...         raise SketchError("a width must be above 0, got 0", field="width")
        ... except SketchError as error:
        ...     error.field
        'strokes[3].width'
    """
    try:
        yield
    except PublicError as error:
        error.field = f"{field}.{error.field}" if error.field else field
        raise
