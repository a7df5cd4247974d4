"""Several models in one process: every gallery is searched with the one that made it."""

import pytest

from indexer.errors import ConfigError, ModelMismatchError
from indexer.exact import exact_search
from indexer.regions import ink_mask
from indexer.sketch import rasterise
from service.client import Client
from service.encoders import Encoders
from tests.conftest import PixelEncoder
from tests.service.conftest import ids, line, make_gallery, serving

MODELS = PixelEncoder(), PixelEncoder(dim=8, size_px=96, seed=9)


@pytest.fixture
def galleries(tmp_path):
    made = [make_gallery(tmp_path / f"faces{at}", model, seed=at) for at, model in enumerate(MODELS)]
    yield made
    for gallery in made:
        gallery.close()


def expected(gallery, model):
    canvas = rasterise([line()], model.size_px)
    rows, _ = exact_search(gallery.rows, model.encode_sketches(canvas[None])[0], ink_mask(canvas), 10)
    return [f"photo{row:04d}" for row in rows]


def test_every_gallery_is_searched_with_its_own_model(galleries):
    with serving(galleries, Encoders(*MODELS)) as service, Client(service.address) as client:
        for gallery, model in zip(galleries, MODELS, strict=True):
            wanted = expected(gallery, model)
            assert ids(client.search(gallery.name, strokes=[line()])) == wanted
            with client.draw(gallery.name) as drawing:
                assert ids(drawing.strokes([line()])) == wanted


def test_a_gallery_of_a_model_that_is_not_there_is_refused(galleries, tmp_path):
    encoders = Encoders(*MODELS)
    foreign = make_gallery(tmp_path / "foreign", PixelEncoder(seed=5))
    with pytest.raises(ModelMismatchError, match=r"gallery foreign was made by model .*, the service has .*, .*; name"):
        encoders.for_gallery(foreign)
    encoders.add(PixelEncoder(seed=5))
    assert encoders.for_gallery(foreign).model_hash == foreign.model_hash
    foreign.close()


def test_a_service_without_a_model_is_refused():
    with pytest.raises(ConfigError, match="at least one model"):
        Encoders()
