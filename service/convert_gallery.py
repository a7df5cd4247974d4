"""How galleries are cropped and what their versions are: wire types to words and back. Light: clients import it."""

from collections.abc import Mapping
from typing import Final

from indexer.errors import QueryError
from mgrl.v1 import gallery_pb2

_CROPS: "Final[Mapping[str, gallery_pb2.PhotoCrop.ValueType]]" = {
    "": gallery_pb2.PHOTO_CROP_UNSPECIFIED,
    "none": gallery_pb2.PHOTO_CROP_NONE,
    "face": gallery_pb2.PHOTO_CROP_FACE,
    "stray": gallery_pb2.PHOTO_CROP_STRAY,
}
_STATES: "Final[Mapping[str, gallery_pb2.GalleryVersionState.ValueType]]" = {
    "current": gallery_pb2.GALLERY_VERSION_STATE_CURRENT,
    "unfinished": gallery_pb2.GALLERY_VERSION_STATE_UNFINISHED,
    "superseded": gallery_pb2.GALLERY_VERSION_STATE_SUPERSEDED,
}


def crop_to_wire(crop: str) -> "gallery_pb2.PhotoCrop.ValueType":
    """A way to crop photos: "none", "face" or "stray"; empty where nothing is said.

    Raises:
        QueryError: there is no such way.
    """
    if crop not in _CROPS:
        raise QueryError(f"photos are cropped in one of the ways {', '.join(filter(None, _CROPS))}, got {crop!r}")
    return _CROPS[crop]


def crop_from_wire(crop: "gallery_pb2.PhotoCrop.ValueType") -> str:
    """See `crop_to_wire`; empty for a way of a later contract than ours."""
    return next((name for name, number in _CROPS.items() if number == crop), "")


def asked_crop(crop: "gallery_pb2.PhotoCrop.ValueType") -> str:
    """The way in which photos shall be cropped; empty where nothing is said.

    Raises:
        QueryError: a way of a later contract than ours.
    """
    name = crop_from_wire(crop)
    if not name and crop != gallery_pb2.PHOTO_CROP_UNSPECIFIED:
        raise QueryError(f"there is no way to crop photos with the number {crop} here", field="crop")
    return name


def state_to_wire(state: str) -> "gallery_pb2.GalleryVersionState.ValueType":
    """What a version is to its gallery, as `indexer.version_list.State` names it."""
    return _STATES[state]


def state_from_wire(state: "gallery_pb2.GalleryVersionState.ValueType") -> str:
    """See `state_to_wire`; empty for a state of a later contract than ours."""
    return next((name for name, number in _STATES.items() if number == state), "")
