"""The client against a real server: what twenty lines of user code get."""

import asyncio
import signal
import threading

import numpy as np
import pytest

from indexer.errors import QueryError, SketchError, UnknownPhotoError
from indexer.fusion import fused_distance
from indexer.regions import ink_mask
from indexer.sketch import rasterise, read_raster
from service.async_client import AsyncClient
from service.client import Client
from service.errors import ServiceError, UnknownGalleryError
from tests.service.cable import Cable
from tests.service.conftest import GatedEncoder, ids, line, make_gallery, png, serving


def expected_order(gallery, encoder, canvas, weights=(1.0, 1.0, 1.0)):
    probe = encoder.encode_sketches(canvas[None])[0]
    by_granularity = dict(zip((1, 2, 3), weights, strict=True))
    distances = fused_distance(probe, gallery.rows, ink_mask(canvas), by_granularity)
    return [f"photo{row:04d}" for row in np.argsort(distances, kind="stable")], np.sort(distances)


def test_search_ranks_as_equation_3_does(client, gallery, encoder):
    strokes = [line(), line(0.5, 0.1, 0.5, 0.9)]
    answer = client.search("faces", strokes=strokes, k=7)
    names, distances = expected_order(gallery, encoder, rasterise(strokes))
    assert ids(answer) == names[:7]
    assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4, 5, 6, 7]
    np.testing.assert_allclose([hit.distance for hit in answer.hits], distances[:7], rtol=1e-6)
    assert (answer.gallery_photos, answer.exact, answer.no_ink) == (24, True, False)
    assert answer.ink.tolist() == ink_mask(rasterise(strokes)).tolist()
    assert min(answer.timings.raster_ms, answer.timings.encode_ms, answer.timings.search_ms) > 0


def test_search_takes_a_picture_and_weights(client, gallery, encoder):
    answer = client.search(raster=png(), k=24, weights={1: 0.0, 2: 0.5, 3: 2.0})
    names, _ = expected_order(gallery, encoder, read_raster(png()), (0.0, 0.5, 2.0))
    assert ids(answer) == names


def test_distances_add_up_over_the_granularities(client):
    hit = client.search(strokes=[line()], weights={1: 1.0, 2: 0.5, 3: 0.25}).hits[0]
    fused = sum(w * hit.granularity_distances[g] for g, w in {1: 1.0, 2: 0.5, 3: 0.25}.items())
    assert hit.distance == pytest.approx(fused, rel=1e-6)
    assert hit.region_distances.shape == (14,)


def test_k_above_the_gallery_returns_every_photo(client):
    assert len(client.search(strokes=[line()], k=1000).hits) == 24


def test_points_are_as_good_as_strokes(client):
    points = line().points.tolist()
    assert ids(client.search(strokes=[points])) == ids(client.search(strokes=[line()]))


def test_thumbnails_come_when_asked_for(client, gallery):
    plain = client.search(strokes=[line()], k=2)
    assert [hit.thumbnail for hit in plain.hits] == [b"", b""]
    for hit in client.search(strokes=[line()], k=2, include_thumbnails=True).hits:
        assert hit.thumbnail == gallery.photo(hit.photo_id).thumbnail


def test_an_empty_canvas_gets_no_ranking(client, gallery):
    answer = client.search(strokes=[])
    assert answer.no_ink
    assert answer.hits == ()
    assert gallery.searches == 0


def test_drawing_is_answered_stroke_by_stroke(client, gallery, encoder):
    strokes = [line(0.2, y, 0.8, y) for y in (0.2, 0.4, 0.6, 0.8)]
    with client.draw("faces", k=24) as drawing:
        for count, stroke in enumerate(strokes, start=1):
            answer = drawing.strokes([stroke])
            assert ids(answer) == expected_order(gallery, encoder, rasterise(strokes[:count]))[0]
            assert (answer.strokes, answer.skipped) == (count, 0)


def test_rank_changes_are_counted_from_the_previous_answer(client):
    with client.draw(k=5) as drawing:
        before = drawing.strokes([line()])
        after = drawing.strokes([line(0.5, 0.5, 0.5, 0.9)])
    assert {(hit.rank_change, hit.is_new) for hit in before.hits} == {(None, False)}
    for hit in after.hits:
        earlier = before.rank_of(hit.photo_id)
        assert hit.rank_change == (None if earlier is None else earlier - hit.rank)
        assert hit.is_new == (earlier is None)
    assert ids(before) != ids(after)


def test_undo_is_as_if_never_drawn(client):
    with client.draw(k=24) as drawing:
        first = drawing.strokes([line()])
        drawing.strokes([line(0.1, 0.9, 0.9, 0.1), line(0.1, 0.1, 0.9, 0.9)])
        undone = drawing.undo(2)
    assert ids(undone) == ids(first)
    assert [hit.distance for hit in undone.hits] == [hit.distance for hit in first.hits]
    assert undone.ink.tolist() == first.ink.tolist()
    assert undone.strokes == 1


def test_clear_empties_strokes_and_picture(client):
    with client.draw() as drawing:
        drawing.raster(png())
        drawing.strokes([line()])
        cleared = drawing.clear()
    assert (cleared.no_ink, cleared.strokes, cleared.hits) == (True, 0, ())


def test_strokes_go_over_a_picture(client, gallery, encoder):
    canvas = np.maximum(read_raster(png()), rasterise([line(0.5, 0.5, 0.5, 0.9)]))
    with client.draw(k=24) as drawing:
        drawing.strokes([line(0.5, 0.5, 0.5, 0.9)])
        answer = drawing.raster(png())
    assert ids(answer) == expected_order(gallery, encoder, canvas)[0]


def test_finish_repeats_the_last_ranking_without_computing_it(client, gallery):
    with client.draw() as drawing:
        last = drawing.strokes([line()])
        searches = gallery.searches
        final = drawing.finish()
    assert ids(final) == ids(last)
    assert {hit.rank_change for hit in final.hits} == {0}
    assert gallery.searches == searches


def test_a_finished_drawing_takes_no_more_strokes(client):
    with client.draw() as drawing:
        drawing.finish()
        with pytest.raises(ServiceError, match="the drawing is finished; begin another"):
            drawing.strokes([line()])


def test_a_drawing_that_was_not_opened_says_how_to(service, client):
    with pytest.raises(ServiceError, match="the drawing is not open; open it with: with client"):
        client.draw().stroke([(0.1, 0.2)])

    async def draw():
        async with AsyncClient(service.address) as connected:
            await connected.draw().stroke([(0.1, 0.2)])

    with pytest.raises(ServiceError, match="the drawing is not open; open it with: with client"):
        asyncio.run(draw())


def test_strokes_can_be_sent_without_waiting(client, gallery, encoder):
    strokes = [line(0.2, y, 0.8, y) for y in (0.2, 0.4, 0.6, 0.8)]
    with client.draw(k=24) as drawing:
        for stroke in strokes:
            last = drawing.send_strokes([stroke])
        answer = drawing.answer(last)
    assert ids(answer) == expected_order(gallery, encoder, rasterise(strokes))[0]
    assert answer.strokes == 4


def test_an_error_in_the_block_cancels_the_drawing(client):
    with pytest.raises(ZeroDivisionError), client.draw() as drawing:
        drawing.strokes([line()]).strokes // 0
    assert client.search(strokes=[line()]).hits


@pytest.fixture
def ctrl_c():
    """Python raises KeyboardInterrupt on SIGINT, also in what a shell runs in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_drawing_goes_on_after_an_edit_was_interrupted(tmp_path):
    encoder = GatedEncoder()

    def interrupt():
        encoder.entered.acquire()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with (
        serving([make_gallery(tmp_path / "faces", encoder)], encoder) as running,
        Client(running.address) as client,
        client.draw() as drawing,
    ):
        encoder.gate.clear()
        pressing = threading.Thread(target=interrupt)
        pressing.start()
        with pytest.raises(KeyboardInterrupt):
            drawing.strokes([line()])
        pressing.join()
        encoder.gate.set()
        assert drawing.strokes([line(y0=0.7, y1=0.7)]).strokes == 2


def test_photo_has_its_source_and_thumbnail(client, gallery):
    photo = client.photo("faces", "photo0003")
    assert (photo.photo_id, photo.source) == ("photo0003", "people/photo0003.jpg")
    assert photo.thumbnail == gallery.photo("photo0003").thumbnail


def test_errors_come_back_as_they_were_raised(client):
    with pytest.raises(UnknownPhotoError, match="gallery faces has no photo 'nobody'"):
        client.photo("faces", "nobody")
    with pytest.raises(UnknownGalleryError, match="no gallery is named 'places'; there are: faces"):
        client.search("places", strokes=[line()])
    with pytest.raises(UnknownGalleryError, match="places"), client.draw("places"):
        pass
    with pytest.raises(SketchError, match="a raster sketch must be a whole PNG, JPEG or WebP file"):
        client.search(raster=b"not a png")
    with pytest.raises(QueryError, match="k must be from 1 to 1000, got 0"):
        client.search(strokes=[line()], k=0)
    with pytest.raises(SketchError, match=r"point 0 is at \(1.2, 0.5\), canvas units run from 0 to 1"):
        client.search(strokes=[[(1.2, 0.5)]])


def test_with_several_galleries_one_must_be_named(tmp_path, encoder):
    galleries = [make_gallery(tmp_path / "b", encoder, seed=1), make_gallery(tmp_path / "a", encoder, photos=3)]
    with serving(galleries, encoder) as running, Client(running.address) as client:
        assert [(info.name, info.photos) for info in client.galleries()] == [("a", 3), ("b", 24)]
        assert client.galleries()[0].model_hash == encoder.model_hash
        assert client.search("a", strokes=[line()]).gallery_photos == 3
        with pytest.raises(QueryError, match="several galleries are served, name one of: a, b"):
            client.search(strokes=[line()])


def test_no_service_says_how_to_start_one():
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(ServiceError, match=r"no service answers at 127\.0\.0\.1:1; start"),
    ):
        client.galleries()


def test_who_hangs_up_at_once_may_have_stopped(service):
    cable = Cable(service.address)
    cable.pull()  # it takes connections and closes them, as a proxy does whose service is gone
    with Client(cable.address) as client, pytest.raises(ServiceError, match="closed it: it may have stopped, or"):
        client.galleries()
    cable.close()


def test_async_client_does_the_same(service, client):
    async def use():
        async with AsyncClient(service.address) as connected:
            found = await connected.search(strokes=[line()], k=24)
            async with connected.draw(k=24) as drawing:
                await drawing.raster(png())
                await drawing.clear()
                await drawing.stroke([(0.1, 0.1), (0.9, 0.9)])
                await drawing.undo()
                drawn = await drawing.strokes([line()])
                with pytest.raises(SketchError, match="undo must take back 1 to 1 steps"):
                    await drawing.undo(9)
                final = await drawing.finish()
            with pytest.raises(UnknownGalleryError, match="places"):
                async with connected.draw("places"):
                    pass
            with pytest.raises(UnknownPhotoError):
                await connected.photo("", "nobody")
            return found, drawn, final, await connected.galleries(), await connected.photo("", "photo0001")

    found, drawn, final, galleries, photo = asyncio.run(use())
    assert ids(found) == ids(drawn) == ids(final) == ids(client.search(strokes=[line()], k=24))
    assert galleries == client.galleries()
    assert photo == client.photo("faces", "photo0001")
