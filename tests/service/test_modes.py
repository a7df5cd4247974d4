"""How exact an answer shall be, from the command line to the index and back."""

import asyncio
import json
import math

import grpc
import numpy as np
import pytest

pytest.importorskip("numba", reason="approximate search needs the `fast` extra")

from indexer.errors import QueryError
from indexer.exact import exact_distances
from indexer.face_like import FaceLike
from indexer.modes import EXACT, Approximate, Budget
from indexer.regions import ink_mask
from indexer.sketch import rasterise
from mgrl.v1 import search_pb2, search_pb2_grpc
from service import cli
from service.async_client import AsyncClient
from service.client import Client
from service.convert import strokes_to_wire
from tests.conftest import PixelEncoder
from tests.service.conftest import ids, line, make_gallery, png, serving

PHOTOS = 30_000
STROKES = [line(), line(0.5, 0.1, 0.5, 0.9)]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    rows = FaceLike(16, seed=5).photos(PHOTOS)
    made = make_gallery(tmp_path_factory.mktemp("galleries") / "many", PixelEncoder(), rows=rows)
    assert made.build_approximate()
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(large):
    with serving([large], PixelEncoder()) as service:
        yield service


@pytest.fixture
def client(running):
    with Client(running.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def distances(large):
    canvas = rasterise(STROKES)
    return exact_distances(large.rows, PixelEncoder().encode_sketches(canvas[None])[0], ink_mask(canvas))


@pytest.mark.parametrize(("mode", "k"), [(Approximate(0.2), 10), (Budget(0.01), 250)])
def test_an_answer_that_left_photos_out_bounds_them(client, distances, mode, k):
    answer = client.search(strokes=STROKES, k=k, mode=mode)
    assert not answer.exact
    rows = [int(hit.photo_id.removeprefix("photo")) for hit in answer.hits]
    np.testing.assert_allclose([hit.distance for hit in answer.hits], distances[rows], rtol=1e-6)
    left_out = np.delete(distances, rows)
    closer = left_out[left_out < answer.hits[-1].distance]
    assert len(closer)
    assert closer.min() >= answer.unseen_from > 0


@pytest.mark.parametrize("mode", [EXACT, Approximate(1.0), Budget(60_000)])
def test_an_answer_that_left_nothing_out_is_exact(client, distances, mode):
    answer = client.search(strokes=STROKES, k=10, mode=mode)
    assert ids(answer) == [f"photo{row:04d}" for row in np.argsort(distances, kind="stable")[:10]]
    assert (answer.exact, answer.unseen_from) == (True, math.inf)


def test_a_gallery_that_is_not_laid_out_answers_exactly(tmp_path, encoder):
    with serving([make_gallery(tmp_path / "few", encoder)], encoder) as running, Client(running.address) as client:
        answer = client.search(strokes=STROKES, mode=Approximate(0.1))
        assert (answer.exact, answer.unseen_from) == (True, math.inf)
        assert ids(answer) == ids(client.search(strokes=STROKES))


def test_a_drawing_keeps_its_mode(running, client):
    with client.draw(mode=Budget(0.01)) as drawing:
        assert not drawing.strokes(STROKES).exact

    async def draw():
        async with AsyncClient(running.address) as connected, connected.draw(mode=Approximate(0.2)) as drawing:
            return await drawing.strokes(STROKES), await connected.search(strokes=STROKES, mode=Approximate(0.2))

    drawn, found = asyncio.run(draw())
    assert not drawn.exact
    assert ids(drawn) == ids(found) == ids(client.search(strokes=STROKES, mode=Approximate(0.2)))


def test_query_says_how_it_was_ranked(running, tmp_path, capsys):
    (tmp_path / "sketch.png").write_bytes(png())
    common = ["query", str(tmp_path / "sketch.png"), "--address", running.address, "--json", str(tmp_path / "found")]
    said = {}
    for options in ((), ("--recall", "0.2"), ("--budget-ms", "0.01")):
        assert cli.main([*common, *options]) == 0
        (answer,) = json.loads((tmp_path / "found").read_text())["answers"]
        said[options] = capsys.readouterr().out, answer["exact"], answer["unseen_from"]
    output, *rest = said.pop(())
    assert f"{PHOTOS} photos ranked exactly: " in output
    assert rest == [True, None]
    for output, exact, unseen_from in said.values():
        assert not exact
        bound = f"ranked approximately (none that was left out is closer than {unseen_from:.3f}): "
        assert bound in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recall", "1.01"], "recall must be above 0 and at most 1, got 1.01"),
        (["--recall", "nan"], "recall must be above 0 and at most 1, got nan"),
        (["--budget-ms", "0"], "budget_ms must be above 0 and at most 60000, got 0"),
        (["--budget-ms", "inf"], "budget_ms must be above 0 and at most 60000, got inf"),
    ],
)
def test_a_mode_out_of_range_is_refused_on_the_command_line(tmp_path, capsys, options, message):
    (tmp_path / "sketch.png").write_bytes(png())
    assert cli.main(["query", str(tmp_path / "sketch.png"), *options]) == 1
    assert capsys.readouterr().err == f"mgrl query: {message}\n"


def test_recall_and_budget_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["query", "sketch.png", "--recall", "0.9", "--budget-ms", "5"])
    assert ended.value.code == 2
    assert "--budget-ms: not allowed with argument --recall" in capsys.readouterr().err


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda v: search_pb2.SearchOptions(budget_ms=v), "budget_ms must be above 0 and at most 60000, got "),
        (
            lambda v: search_pb2.SearchOptions(approximate=search_pb2.ApproximateMode(recall=v)),
            "recall must be above 0 and at most 1, got ",
        ),
    ],
)
def test_a_mode_out_of_range_is_refused_by_the_service(running, options, message, value):
    sketch = search_pb2.SearchRequest(strokes={"strokes": strokes_to_wire(STROKES)}, options=options(value))
    begin = search_pb2.DrawRequest(sequence=1, begin=search_pb2.DrawBegin(options=options(value)))
    with grpc.insecure_channel(running.address) as channel:
        stub = search_pb2_grpc.SketchSearchServiceStub(channel)
        for call in (lambda: stub.Search(sketch, timeout=5), lambda: list(stub.Draw(iter([begin]), timeout=5))):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details().startswith(message)


def test_modes_out_of_range_cannot_be_made():
    for make in (lambda: Approximate(0), lambda: Approximate(math.nan), lambda: Budget(-1), lambda: Budget(math.nan)):
        with pytest.raises(QueryError, match="must be above 0 and at most"):
            make()
