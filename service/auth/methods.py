"""Which role every method takes, in one place; a method that is not here is refused.

Health checks are open: they are asked by machines that hold no key, and answer "serving" or "not serving" alone. `List`
would name the galleries, and reflection is of use to those who may call something: both take any key. To list all
photos of a gallery is for those who fill it, not for those who search: they see what a sketch leads to.
"""

from collections.abc import Mapping
from typing import Final

OPEN: Final = "open"
"""Nobody is asked who calls."""

ANY: Final = "any"
"""Everybody who is known may."""

SEARCH, INGEST, ADMIN = "search", "ingest", "admin"

_SKETCHES: Final = "/mgrl.v1.SketchSearchService/"
_GALLERIES: Final = "/mgrl.v1.GalleryService/"
_ADMIN: Final = "/mgrl.v1.AdminService/"

DRAW: Final = _SKETCHES + "Draw"

ROLE_OF: Final[Mapping[str, str]] = {
    _SKETCHES + "Search": SEARCH,
    DRAW: SEARCH,
    _SKETCHES + "Replay": SEARCH,
    _GALLERIES + "CreateGallery": ADMIN,
    _GALLERIES + "DeleteGallery": ADMIN,
    _GALLERIES + "ListGalleries": ANY,
    _GALLERIES + "DescribeGallery": ANY,
    _GALLERIES + "ListVersions": ANY,
    _GALLERIES + "ListPhotos": INGEST,
    _GALLERIES + "GetPhoto": SEARCH,
    _GALLERIES + "UpsertPhotos": INGEST,
    _GALLERIES + "DeletePhotos": INGEST,
    _ADMIN + "ListModels": ADMIN,
    _ADMIN + "VerifyGallery": ADMIN,
    _ADMIN + "BackupGallery": ADMIN,
    _ADMIN + "ReloadSettings": ADMIN,
    _ADMIN + "Drain": ADMIN,
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.health.v1.Health/List": ANY,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": ANY,
}

WHOLE_SERVICE: Final = frozenset({_ADMIN + "ReloadSettings", _ADMIN + "Drain"})
"""Touch every gallery, so they are closed to callers that are limited to some."""
