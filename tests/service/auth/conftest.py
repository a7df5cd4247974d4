"""Keys, and services that ask for them."""

import pytest

from service.auth.keys import add_key, changing_keys
from service.client import Client
from service.config_access import Secret
from service.credentials import Credentials
from tests.service.conftest import make_gallery


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def new_key(key_file):
    """Makes a key; the text that opens."""

    def make(name="desk", roles=("search",), galleries=None, expires=None, **limits):
        with changing_keys(key_file) as keys:
            return add_key(keys, name, roles, galleries, expires, limits)

    return make


@pytest.fixture
def staff_and_guests(tmp_path, encoder):
    made = [make_gallery(tmp_path / name, encoder, seed=seed) for seed, name in enumerate(("staff", "guests"))]
    yield made
    for gallery in made:
        gallery.close()


def client_with(service, token=None, **more):
    return Client(service.address, credentials=Credentials(token=Secret(token) if token else None, **more))
