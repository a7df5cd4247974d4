"""What the browser's tests share: painted people, served and shown, and one browser.

Screenshots of desktop and phone sizes are kept in the folder that MGRL_SCREENSHOTS names, or in pytest's own.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from indexer.encoding import OnnxEncoder
from indexer.gallery import Gallery
from indexer.ingest import ingest
from service.demo.sample import make_sample
from service.demo.subject import invented_subject
from tests.service.conftest import make_gallery, serving
from tests.service.web.browser import CHROMIUM, HOSTILE, PEOPLE, SEED
from tests.service.web.page import page_for


@pytest.fixture(scope="package")
def model():
    return OnnxEncoder.open(spins=False)


@pytest.fixture(scope="package")
def galleries(tmp_path_factory, model):
    """Forty painted people, one of them of a hostile name, with metadata; and a gallery whose thumbnails are broken."""
    folder = tmp_path_factory.mktemp("sample")
    make_sample(folder / "photos", PEOPLE, SEED)
    shutil.copy(folder / "photos" / "person0040.jpg", folder / "photos" / f"{HOSTILE}.jpg")
    (folder / "photos" / "person0040.jpg").unlink()
    known = [{"photo_id": f"person{n:04d}", "age": n, "seen": n % 2 == 0, "place": "north"} for n in range(1, PEOPLE)]
    known.append({"photo_id": HOSTILE, "age": 40, "place": "<script>document.title='broken'</script>"})
    (folder / "known.jsonl").write_text("".join(json.dumps(one) + "\n" for one in known))
    ingest(folder / "people", [folder / "photos"], model, metadata=folder / "known.jsonl")
    people, faceless = Gallery.open(folder / "people"), make_gallery(folder / "faceless", model, photos=5)
    yield [people, faceless]
    people.close()
    faceless.close()


@pytest.fixture(scope="package")
def episode():
    return invented_subject(PEOPLE, SEED, 20)


@pytest.fixture(scope="module")  # no longer: beside it no test can run an event loop of its own
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="package")
def shots(tmp_path_factory):
    folder = Path(os.environ.get("MGRL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"screenshots: {folder}")
    return folder


@pytest.fixture(scope="package")
def address(galleries, model):
    with serving(galleries, model) as running, page_for(running.address) as page:
        yield page.address
