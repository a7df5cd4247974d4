"""The catalog is complete, and errors survive the wire."""

import logging

import grpc
import pytest
from google.rpc import code_pb2

import indexer.errors
import service.errors
from indexer.errors import GalleryError, PublicError, QueryError
from service.errors import CATALOG, LimitError, ServiceError, error_from_status, reason, status_of


def below(kind: type) -> set[type]:
    found = set(kind.__subclasses__())
    return found.union(*map(below, found)) if found else found


def test_the_catalog_holds_every_public_error():
    ours = {kind for kind in below(PublicError) if kind.__module__.split(".")[0] != "tests"}
    assert set(CATALOG) == ours
    assert {kind.__module__ for kind in ours} >= {indexer.errors.__name__, service.errors.__name__}


@pytest.mark.parametrize("kind", CATALOG)
def test_every_public_error_survives_the_wire(kind):
    status = status_of(kind("what must hold, what was found"))
    assert code_pb2.Code.Name(status.code) == CATALOG[kind].name
    back = error_from_status(status)
    assert type(back) is kind
    assert str(back) == "what must hold, what was found"


def test_a_limit_says_when_to_come_back():
    back = error_from_status(status_of(LimitError.after(1.25, "60 strokes a second are allowed")))
    assert isinstance(back, LimitError)
    assert (back.retry_after_s, str(back)) == (1.25, "60 strokes a second are allowed")
    never = status_of(LimitError("a message may have 1024 bytes, this one has 2048"))
    assert not any(detail.type_url.endswith("RetryInfo") for detail in never.details)


@pytest.mark.parametrize("letter", ["a", "ü", "顔"])
def test_a_long_message_is_cut_to_what_metadata_holds(letter):
    status = status_of(QueryError(f"name one of: {letter * 60_000}", field="gallery"))
    assert status.message.startswith(f"name one of: {letter}")
    assert status.message.endswith(f"{letter}...")
    assert status.ByteSize() < 2500
    assert str(error_from_status(status)) == status.message


def test_a_message_holds_whatever_a_file_is_named():
    assert status_of(GalleryError("gallery \udcff is damaged")).message == "gallery ? is damaged"


def test_reasons_tell_errors_apart():
    assert len({reason(kind) for kind in CATALOG}) == len(CATALOG)


def test_a_new_kind_of_a_known_error_has_its_status():
    class TornGalleryError(GalleryError):
        pass

    assert status_of(TornGalleryError("torn")).code == grpc.StatusCode.FAILED_PRECONDITION.value[0]


def test_anything_else_is_internal_and_says_nothing(caplog):
    with caplog.at_level(logging.ERROR):
        status = status_of(KeyError("/srv/secret"))
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in str(status)
    assert "/srv/secret" in caplog.text
    assert isinstance(error_from_status(status), ServiceError)
