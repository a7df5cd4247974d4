"""A service that asks who calls, on the wire: keys, roles, galleries, limits and purposes."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import grpc
import jwt
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from indexer.errors import ConfigError, QueryError
from indexer.upload import Upload
from mgrl.v1 import search_pb2, search_pb2_grpc
from service.admin_client import AdminClient
from service.async_client import AsyncClient
from service.auth import authenticator, methods
from service.auth.keys import changing_keys, revoke_key
from service.client import Client
from service.config import Config
from service.config_access import AuthConfig, CreatedConfig, GalleryConfig, JwtConfig, LimitsConfig, Secret
from service.credentials import Credentials
from service.errors import (
    AuthenticationError,
    ForbiddenError,
    LimitError,
    UnknownGalleryError,
    UnknownTokenError,
    error_from_rpc,
)
from service.server import SERVICES
from tests.indexer.test_upserting import jpeg
from tests.service.auth.conftest import client_with
from tests.service.conftest import ids, line, serving

JWT = JwtConfig("HS256", secret=Secret("a shared secret of more than 32 bytes"), audience="mgrl", issuer="desk")


@pytest.fixture
def serve(staff_and_guests, encoder, new_key, key_file, monkeypatch):
    """Starts a service that asks for keys; `token` is good for everything."""
    monkeypatch.setattr(authenticator, "_LOOK_EVERY_S", 0.0)
    opened = []

    def start(**config):
        access = Config(auth=AuthConfig(key_file), **config)
        opened.append(serving(staff_and_guests, encoder, access=access))
        return opened[-1].__enter__()

    start.token = new_key("root", ("search", "ingest", "admin"))
    yield start
    for service in opened:
        service.__exit__(None, None, None)


def refused(service, token=None, gallery="staff", **search):
    """The error that a search ends with."""
    with client_with(service, token) as client, pytest.raises(Exception) as error:  # noqa: PT011
        client.search(gallery, strokes=[line()], **search)
    return error.value


def test_without_a_key_nobody_comes_in(serve, new_key):
    service = serve()
    error = refused(service)
    assert isinstance(error, AuthenticationError)
    assert str(error) == (
        "no key was sent; commands take --key-file, other callers add the metadata `authorization: Bearer KEY`"
    )
    with client_with(service) as client:
        for call in (client.galleries, lambda: client.photo("staff", "photo0001"), client.draw("staff").__enter__):
            with pytest.raises(AuthenticationError):
                call()
    with client_with(service, serve.token) as client:
        assert client.search("staff", strokes=[line()]).hits
        assert [gallery.name for gallery in client.galleries()] == ["guests", "staff"]


def test_wrong_expired_and_revoked_keys_are_refused(serve, new_key, key_file):
    service = serve()
    soon = datetime.now(UTC) + timedelta(seconds=1)
    until, desk = new_key("until", expires=soon), new_key("desk")
    assert str(refused(service, desk[:-2] + "xx")) == "the key is not known here"
    assert str(refused(service, "mgrl_000000000000_" + "a" * 43)) == "the key is not known here"
    assert str(refused(service, "password")) == "the key is not known here"
    with changing_keys(key_file) as keys:
        revoke_key(keys, "desk")
    assert str(refused(service, desk)) == "the key desk was revoked"
    time.sleep(1.1)
    error = refused(service, until)
    assert str(error) == f"the key until expired on {soon:%Y-%m-%d}; get a new one"
    assert isinstance(error, AuthenticationError)


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic abc", "mgrl_abc"])
def test_what_is_no_bearer_is_refused(serve, value):
    with grpc.insecure_channel(serve().address) as channel:
        stub = search_pb2_grpc.SketchSearchServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.Search(search_pb2.SearchRequest(gallery="staff"), metadata=[("authorization", value)], timeout=5)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.value.details().startswith("the metadata `authorization` must be `Bearer KEY`")


def test_a_role_that_is_too_small_is_refused(serve, new_key):
    service = serve()
    error = refused(service, new_key("feeder", ("ingest", "admin")))
    assert isinstance(error, ForbiddenError)
    assert str(error) == "this call takes the role search, key feeder has: admin, ingest"
    with client_with(service, new_key("feeder2", ("ingest",))) as client:
        assert len(client.galleries()) == 2


def test_a_key_of_one_gallery_sees_no_other(serve, new_key):
    service = serve()
    token = new_key("desk", galleries=("staff",))
    for name in ("guests", "nowhere"):
        error = refused(service, token, name)
        assert isinstance(error, ForbiddenError)
        assert str(error) == f"key desk may not use gallery '{name}'"
    with client_with(service, token) as client:
        assert [gallery.name for gallery in client.galleries()] == ["staff"]
        # The only one that there is for this caller.
        assert ids(client.search(strokes=[line()])) == ids(client.search("staff", strokes=[line()]))
        with pytest.raises(ForbiddenError):
            client.photo("guests", "photo0001")
        with pytest.raises(ForbiddenError), client.draw("guests"):
            pass
    assert str(refused(service, new_key("nobody", galleries=()), "")) == (
        "the caller may use none of the galleries that are served"
    )
    assert isinstance(refused(service, serve.token, "nowhere"), UnknownGalleryError)


def test_galleries_are_made_by_admins_and_by_the_limited_ones_among_theirs(serve, new_key, tmp_path):
    service = serve(created=CreatedConfig(folder=tmp_path / "made"))
    (tmp_path / "made").mkdir()
    with client_with(service, new_key("feeder", ("search", "ingest"))) as client:
        for call in (client.create, client.delete_gallery):
            with pytest.raises(ForbiddenError, match="takes the role admin"):
                call("visitors")
    with client_with(service, new_key("keeper", ("admin",), galleries=("visitors", "staff"))) as client:
        for call in (client.create, client.delete_gallery):
            with pytest.raises(ForbiddenError, match="key keeper may not use gallery 'others'"):
                call("others")
        client.create("visitors")
        assert [gallery.name for gallery in client.galleries()] == ["staff", "visitors"]
    assert isinstance(refused(service, new_key("desk", galleries=("staff",)), "visitors"), ForbiddenError)
    with client_with(service, serve.token) as client:
        client.create("others")
        assert len(client.galleries()) == 4
        client.delete_gallery("visitors")
        assert client.versions("others")[0].photos == 0


def test_a_drawing_is_resumed_by_the_key_that_began_it_alone(serve, new_key):
    service = serve()
    owner, thief = new_key("owner"), new_key("thief")

    def resumed_by(token, resume_token):
        resume = search_pb2.DrawRequest(resume=search_pb2.DrawResume(token=resume_token))
        with grpc.insecure_channel(service.address) as channel:
            stub = search_pb2_grpc.SketchSearchServiceStub(channel)
            metadata = [("authorization", f"Bearer {token}")]
            return next(stub.Draw(iter([resume]), metadata=metadata, timeout=5)).result.strokes

    with client_with(service, owner) as client, client.draw("staff") as drawing:
        drawing.strokes([line()])
        resume_token = drawing._journal.resume().resume.token
        for _ in ("on a stream", "kept"):
            with pytest.raises(grpc.RpcError) as refusal:
                resumed_by(thief, resume_token)
            error = error_from_rpc(refusal.value, "there")
            assert isinstance(error, UnknownTokenError)
            # In the words that are said of a token which there never was.
            with pytest.raises(grpc.RpcError) as unknown:
                resumed_by(owner, "never")
            assert str(error_from_rpc(unknown.value, "there")) == str(error)
            drawing._hang_up()
        assert resumed_by(owner, resume_token) == 1
        drawing._has_ended = True


def test_a_gallery_may_be_closed_to_a_role(serve):
    service = serve(galleries={"guests": GalleryConfig(roles=("ingest",))})
    assert str(refused(service, serve.token, "guests")) == (
        "gallery guests is not open to the role search in this service"
    )


def test_tokens_and_keys_go_together(serve):
    service = serve(jwt=JWT)
    good = {"sub": "anna", "aud": "mgrl", "iss": "desk", "exp": time.time() + 60, "roles": ["search"]}
    with client_with(service, jwt.encode(good, JWT.secret.reveal())) as client:
        assert client.search("staff", strokes=[line()]).hits
    late = jwt.encode({**good, "exp": time.time() - 31}, JWT.secret.reveal())
    assert str(refused(service, late)) == "the token has expired; get a new one"
    with client_with(service, serve.token) as client:
        assert client.galleries()


def test_calls_above_the_rate_are_refused_with_the_time_to_wait(serve, new_key):
    service = serve(limits=LimitsConfig(calls_per_s=0.5))
    with client_with(service, new_key("desk")) as client:
        client.galleries()
        with pytest.raises(LimitError, match=r"key desk may ask for 0\.5 calls a second; try again in") as error:
            client.galleries()
        assert 0 < error.value.retry_after_s <= 2
    with client_with(service, new_key("fast", calls_per_s=100)) as client:
        for _ in range(20):
            client.galleries()


def test_strokes_above_the_rate_are_refused_and_the_drawing_goes_on(serve, new_key):
    service = serve()
    with client_with(service, new_key("desk", strokes_per_s=2)) as client, client.draw("staff") as drawing:
        drawing.strokes([line()] * 4)
        with pytest.raises(LimitError, match="key desk may ask for 2 strokes a second") as error:
            drawing.strokes([line()])
        assert drawing.answer(1).strokes == 4
        time.sleep(error.value.retry_after_s + 0.05)
        assert drawing.strokes([line()]).strokes == 5


def test_a_stroke_that_is_extended_once_counts_once(serve, new_key):
    service = serve()
    with client_with(service, new_key("desk", strokes_per_s=2)) as client, client.draw("staff") as drawing:
        for _ in range(4):
            drawing.strokes([line()])
            drawing.extend([(0.9, 0.9)])
        # Not so what is extended again, nor what would extend a stroke that was refused.
        for more in (lambda: drawing.extend([(0.9, 0.8)]), lambda: drawing.strokes([line()]), drawing.undo):
            with pytest.raises(LimitError, match="key desk may ask for 2 strokes a second"):
                more()
        with pytest.raises(LimitError):
            drawing.extend([(0.9, 0.8)])


def test_a_stroke_limit_counts_finished_sketches_too(serve, new_key):
    service = serve()
    token = new_key("desk", strokes_per_s=2)
    with client_with(service, token) as client:
        client.search("staff", strokes=[line()] * 4)
    assert isinstance(refused(service, token), LimitError)


def test_messages_above_a_keys_size_are_refused(serve, new_key):
    service = serve()
    token = new_key("desk", message_bytes=300)
    with client_with(service, token) as client:
        assert client.search("staff", strokes=[line()]).hits
        with pytest.raises(LimitError, match=r"a message may have 300 bytes, this one has \d+; thin it out") as error:
            client.search("staff", strokes=[line()] * 5)
        assert error.value.retry_after_s == 0
        with client.draw("staff") as drawing:
            with pytest.raises(LimitError, match="a message may have 300 bytes"):
                drawing.strokes([line()] * 5)
            assert drawing.strokes([line()]).strokes == 1


def test_a_drawing_ends_when_its_key_is_revoked(serve, new_key, key_file):
    service = serve()
    with client_with(service, new_key("desk")) as client, client.draw("staff") as drawing:
        assert drawing.strokes([line()]).hits
        with changing_keys(key_file) as keys:
            revoke_key(keys, "desk")
        with pytest.raises(AuthenticationError, match="the key desk was revoked"):
            drawing.strokes([line()])


def test_a_drawing_ends_when_its_token_expires(serve):
    config = JwtConfig("HS256", secret=JWT.secret, audience="mgrl", issuer="desk", leeway_s=0)
    service = serve(jwt=config)
    claims = {"sub": "anna", "aud": "mgrl", "iss": "desk", "exp": time.time() + 1.5, "roles": ["search"]}
    token = jwt.encode(claims, JWT.secret.reveal())
    with client_with(service, token) as client, client.draw("staff") as drawing:
        assert drawing.strokes([line()]).hits
        time.sleep(1.6)
        with pytest.raises(AuthenticationError, match="the token has expired"):
            drawing.strokes([line()])


def test_a_key_file_that_breaks_locks_nobody_out_and_lets_nobody_in(serve, new_key, key_file, caplog):
    service = serve()
    whole = key_file.read_text()
    key_file.write_text("{")
    with client_with(service, serve.token) as client:
        assert client.galleries()
    assert "the keys as they were stay in force" in caplog.text
    key_file.write_text(whole)
    token = new_key("late")
    with client_with(service, token) as client:
        assert client.galleries()


def test_a_key_file_whose_mode_is_put_right_is_read(serve, new_key, key_file, caplog):
    service = serve()
    late = new_key("late")
    key_file.chmod(0o620)
    for _ in range(2):
        assert str(refused(service, late)) == "the key is not known here"
    assert caplog.text.count("may be changed by others (mode 0620); chmod 600 it") == 1
    key_file.chmod(0o600)
    with client_with(service, late) as client:
        assert client.galleries()


def test_a_gallery_may_want_to_know_the_purpose(serve):
    service = serve(galleries={"staff": GalleryConfig(purpose_required=True)})
    for purpose in ("", "   "):
        error = refused(service, serve.token, purpose=purpose)
        assert isinstance(error, QueryError)
        assert str(error) == ("gallery staff wants to know what a search is for; set `purpose`, such as a case number")
    with client_with(service, serve.token) as client:
        with pytest.raises(QueryError, match="gallery staff wants to know") as caught, client.draw("staff"):
            pass
        assert (error.field, caught.value.field) == ("purpose", "begin.purpose")
        assert client.search("staff", strokes=[line()], purpose="case 12").hits
        with client.draw("staff", purpose="case 12") as drawing:
            assert drawing.strokes([line()]).hits
        assert client.search("guests", strokes=[line()]).hits
    for purpose in ("x" * 201, "case\n12", "\x1b[2J"):
        assert str(refused(service, serve.token, purpose=purpose)).startswith("a purpose must be printable text")


async def asked_with(service, token):
    credentials = Credentials(token=Secret(token))
    async with AsyncClient(service.address, credentials=credentials) as client:
        async with client.draw("staff", purpose="case 12") as drawing:
            answer = await drawing.strokes([line()])
        return answer, await client.search("staff", strokes=[line()]), await client.galleries()


def test_the_asyncio_client_shows_its_key_too(serve):
    answer, search, galleries = asyncio.run(asked_with(serve(), serve.token))
    assert answer.hits
    assert search.hits
    assert len(galleries) == 2


def test_every_method_of_the_contract_has_a_role():
    pool = descriptor_pool.Default()
    served = {
        f"/{service}/{method.name}"
        for service in (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        for method in pool.FindServiceByName(service).methods
    }
    assert "/mgrl.v1.SketchSearchService/Draw" in served
    assert served == set(methods.ROLE_OF)


def test_a_method_that_has_no_role_is_refused(serve, monkeypatch):
    roles = {name: role for name, role in methods.ROLE_OF.items() if not name.endswith("/Search")}
    monkeypatch.setattr("service.guard.ROLE_OF", roles)
    error = refused(serve(), serve.token)
    assert str(error) == "/mgrl.v1.SketchSearchService/Search is open to nobody"
    assert isinstance(error, ForbiddenError)


def test_health_is_open_and_reflection_takes_a_key(serve):
    service = serve()
    metadata = (("authorization", f"Bearer {serve.token}"),)
    with grpc.insecure_channel(service.address) as channel:
        probe = health_pb2_grpc.HealthStub(channel)
        assert probe.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING
        assert next(probe.Watch(health_pb2.HealthCheckRequest(), timeout=5)).status
        reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        assert next(reflected(iter([asked]), timeout=5, metadata=metadata)).list_services_response.service
        for call in (
            lambda: probe.List(health_pb2.HealthListRequest(), timeout=5),
            lambda: next(reflected(iter([asked]), timeout=5)),
        ):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_key_never_leaves_unencrypted_unless_said(new_key):
    token = Secret(new_key())
    with pytest.raises(ConfigError, match=r"the key would travel to faces\.example:50051 unencrypted"):
        Client("faces.example:50051", credentials=Credentials(token=token))
    Client("faces.example:50051", credentials=Credentials(token=token, insecure=True)).close()
    assert token.reveal() not in repr(Credentials(token=token))


def test_no_key_is_ever_logged(serve, new_key, caplog):
    caplog.set_level("DEBUG")
    service = serve()
    token = new_key("desk")
    with client_with(service, token) as client:
        client.galleries()
    wrong = token[:-3] + "xyz"
    refused(service, wrong)
    assert caplog.text
    assert token.split("_", 2)[2][:20] not in caplog.text


def test_an_unknown_service_is_still_unknown(serve):
    with grpc.insecure_channel(serve().address) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/mgrl.v1.Nothing/Nothing")(b"", timeout=5)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_key_that_searches_changes_nothing_and_one_that_ingests_finds_nothing(serve, new_key):
    service = serve(galleries={"staff": GalleryConfig(writable=True)})
    with client_with(service, new_key("desk")) as client:
        for change in (
            lambda: client.delete(["photo0001"], "staff"),
            lambda: client.upsert([Upload("anna", jpeg(1, 600))], "staff"),
        ):
            with pytest.raises(ForbiddenError, match="takes the role ingest, key desk has: search"):
                change()
    with client_with(service, new_key("feeder", ("ingest",), message_bytes=2000)) as client:
        assert client.delete(["photo0001"], "staff") == 1
        with pytest.raises(LimitError, match="a message may have 2000 bytes"):
            client.upsert([Upload("anna", jpeg(1, 600))], "staff")
    assert isinstance(refused(service, new_key("other", ("ingest",))), ForbiddenError)


def test_who_is_limited_to_some_galleries_neither_stops_the_service_nor_changes_it(serve, new_key):
    service = serve()
    some = Credentials(token=Secret(new_key("porter", ("admin",), ("guests",))))
    with AdminClient(service.address, credentials=some) as admin:
        assert admin.verify("guests").photos
        for call in (admin.reload, admin.drain, lambda: admin.verify("staff")):
            with pytest.raises(ForbiddenError, match="porter"):
                call()
    with AdminClient(service.address, credentials=Credentials(token=Secret(serve.token))) as admin:
        admin.drain()
