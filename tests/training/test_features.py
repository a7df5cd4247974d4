"""The cache of frozen features: right, resumable, and never that of anything else."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from indexer.errors import DataError  # noqa: E402
from indexer.regions import REGIONS  # noqa: E402
from training.encoder.layers import PassLayers  # noqa: E402
from training.encoder.mgrl import MgrlTrunk, crop_pixels, whole_pixels  # noqa: E402
from training.encoder.single_pass import SinglePassEncoder, pool_regions  # noqa: E402
from training.features import CropFeatures, PassFeatures, Source, extract, in_batches  # noqa: E402

SIDE = 6


class Means:
    """An extractor that can be counted and broken."""

    size_px = SIDE
    shapes: Mapping[str, tuple[int, ...]] = {"mean": (3,)}

    def __init__(self, name: str = "means", fail_at: int | None = None) -> None:
        self.name, self.calls, self.fail_at = name, 0, fail_at

    def run(self, images: npt.NDArray[np.uint8], ink: npt.NDArray[np.bool_]) -> Mapping[str, npt.NDArray[np.float16]]:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(28, "No space left on device")
        return {"mean": images.mean(axis=(1, 2)).astype(np.float16)}


def source(key: str = "k", parts: int = 5) -> Source:
    images = np.random.default_rng(0).integers(0, 256, (parts, 2, SIDE, SIDE, 3), dtype=np.uint8)
    made = [lambda part=part: part for part in images]
    return Source(key, 2 * parts, in_batches(made, 2, is_sketch=False))


def expected(parts: int = 5) -> npt.NDArray[np.float16]:
    images = np.random.default_rng(0).integers(0, 256, (parts, 2, SIDE, SIDE, 3), dtype=np.uint8)
    return images.reshape(-1, SIDE, SIDE, 3).mean(axis=(1, 2)).astype(np.float16)


def test_features_are_computed_once(tmp_path: Path) -> None:
    extractor = Means()
    seen: list[int] = []
    first = extract(extractor, source(), tmp_path, seen.append)
    np.testing.assert_array_equal(first["mean"], expected())
    assert first["ink"].all()
    assert seen == [0, 2, 4, 6, 8, 10]
    np.testing.assert_array_equal(extract(extractor, source(), tmp_path)["mean"], expected())
    assert extractor.calls == 5


def test_a_full_disk_loses_nothing_that_is_done(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No space left on device; free some space there .* what is done is kept"):
        extract(Means(fail_at=4), source(), tmp_path)
    extractor = Means()
    np.testing.assert_array_equal(extract(extractor, source(), tmp_path)["mean"], expected())
    assert extractor.calls == 2  # of five batches three were done


def test_too_little_room_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1 << 20

    monkeypatch.setattr("training.features.shutil.disk_usage", lambda folder: Usage)
    extractor = Means()
    with pytest.raises(DataError, match=r"features need 0 MiB in .*, where 1 MiB are free"):
        extract(extractor, source(), tmp_path)
    assert extractor.calls == 0


@pytest.mark.parametrize("damage", ["mean.npy", "done.json", "ink.npy"])
def test_a_torn_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    extract(Means(), source(), tmp_path)
    (path,) = tmp_path.glob(f"*/{damage}")
    path.write_bytes(path.read_bytes()[:7])
    np.testing.assert_array_equal(extract(Means(), source(), tmp_path)["mean"], expected())


def test_other_weights_or_images_have_a_cache_of_their_own(tmp_path: Path) -> None:
    extract(Means(), source(), tmp_path)
    for extractor, images in ((Means("other weights"), source()), (Means(), source("other images"))):
        extract(extractor, images, tmp_path)
        assert extractor.calls == 5


def test_a_sketch_is_shown_dark_on_white_and_knows_its_ink() -> None:
    canvas = np.zeros((1, 192, 192), np.uint8)
    canvas[0, :60, :60] = 255
    ((images, ink),) = list(in_batches([lambda: canvas], 1, is_sketch=True)(0))
    assert images.shape == (1, 192, 192, 3)
    assert images[0, 0, 0].tolist() == [0, 0, 0]
    assert images[0, 100, 100].tolist() == [255, 255, 255]
    assert ink[0, :6].tolist() == [True, True, False, False, False, True]


def batches(side: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]:
    ink = np.ones((2, REGIONS), bool)
    ink[0, 3] = False
    yield np.random.default_rng(1).integers(0, 256, (2, side, side, 3), dtype=np.uint8), ink


@pytest.mark.slow
def test_the_fourteen_crops_are_those_of_the_network() -> None:
    torch.manual_seed(0)
    extractor = CropFeatures(None)
    torch.manual_seed(0)
    trunk = MgrlTrunk(None).eval()
    ((images, ink),) = batches(extractor.size_px)
    images.setflags(write=False)  # as Pillow's are
    found = extractor.run(images, ink)
    pixels = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        whole = torch.nn.functional.adaptive_max_pool2d(trunk.whole(whole_pixels(pixels)), 2)
        cell = trunk.crops(crop_pixels(pixels, 7)).amax(dim=(2, 3))
    np.testing.assert_allclose(found["whole"], whole.numpy(), atol=2e-3)
    np.testing.assert_allclose(found["cells"][:, 6], cell.numpy(), atol=2e-3)
    assert not found["cells"][0, 2].any()  # region 3 of the first holds no ink
    assert found["cells"][1, 2].any()


def test_the_random_trunk_is_one_and_the_same_and_spends_no_chance_of_others() -> None:
    before = torch.get_rng_state()
    one, two = PassLayers(None).state_dict(), PassLayers(None).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_pass_gives_what_the_heads_of_the_encoder_see() -> None:
    torch.manual_seed(0)
    extractor = PassFeatures(None)
    torch.manual_seed(0)
    encoder = SinglePassEncoder(8).eval()
    torch.manual_seed(0)
    from training.encoder.trunk import mixed_5d

    encoder.trunk = mixed_5d(None)
    ((images, ink),) = batches(192)
    with torch.no_grad():
        pooled = pool_regions(encoder.trunk(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255))
    np.testing.assert_allclose(extractor.run(images, ink)["regions"], pooled.numpy(), rtol=5e-3, atol=5e-3)
