"""The paper's own setting, on a CPU, on four people: what is trained, at which rates, and what is left alone."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from indexer.encoding import OnnxEncoder, photo_pixels  # noqa: E402
from indexer.regions import REGIONS, ink_mask  # noqa: E402
from service.cli import main  # noqa: E402
from tests.training.small_layers import SmallLayers  # noqa: E402
from training import full  # noqa: E402
from training.data import find_pair, open_image, read_split  # noqa: E402
from training.encoder.layers import CropLayers  # noqa: E402
from training.encoder.trunk import STEM_LAYERS  # noqa: E402
from training.frozen import People  # noqa: E402
from training.full import FullWorkshop, paper_recipe  # noqa: E402
from training.live import LiveSet  # noqa: E402
from training.loop import Recipe, _optimiser  # noqa: E402
from training.systems import SYSTEMS  # noqa: E402
from training.trained import read_trained  # noqa: E402

DEEP = [name for name, system in SYSTEMS.items() if system.features == "crops"]
SHORT = Recipe(epochs=1, batch=2, rate=1e-3, trunk_rate=1e-4, constant=True)
READS = ("whole", "cells")


@pytest.fixture(scope="module")
def people(tiny_fs2k: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[People, People]:
    """Those to train on and those whose drawings are probes, three stages each."""
    episodes = tmp_path_factory.mktemp("episodes")
    fit, val = (tuple(read_split(tiny_fs2k / f"{part}.txt")) for part in ("fit", "val"))
    return People(tiny_fs2k, fit, episodes, 3), People(tiny_fs2k, val, episodes, 3)


def seeded_layers(weights: Path | None = None) -> SmallLayers:
    torch.manual_seed(0)
    return SmallLayers()


def test_maps_are_those_of_the_drawings_and_their_mirror_images(people: tuple[People, People]) -> None:
    fit, _ = people
    layers = seeded_layers()
    live = LiveSet(fit, layers, READS)
    episodes = fit.draw()
    for _ in range(2):
        mirrored = live._mirrored.tolist()
        canvases = np.stack([episodes[name].canvases(60)[1] for name in fit.names])
        photos = np.stack([photo_pixels(open_image(find_pair(fit.data, name).photo), 60) for name in fit.names])
        for person in np.flatnonzero(mirrored):
            canvases[person], photos[person] = canvases[person, :, ::-1], photos[person, :, ::-1].copy()
        ink = torch.from_numpy(ink_mask(canvases))
        everyone = torch.arange(4)
        assert torch.equal(live.ink[:, 1], ink)
        paper = torch.from_numpy(255 - canvases)[:, None].expand(-1, 3, -1, -1) / 255
        with torch.no_grad():
            sketches, drawn = live.sketches(everyone, torch.ones(4, dtype=torch.long)), live.drawings(everyone)
            expected = layers(paper, ink, READS)
            upright = layers(torch.from_numpy(photos).permute(0, 3, 1, 2) / 255, torch.ones(4, REGIONS), READS)
        torch.testing.assert_close(sketches["cells"], expected["cells"])
        torch.testing.assert_close(drawn["whole"][1::3], expected["whole"])
        torch.testing.assert_close(live.photos(everyone)["whole"].detach(), upright["whole"])
        live.disturb(torch.Generator().manual_seed(1))
    assert 0 < sum(live._mirrored.tolist()) < 4


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_every_deep_system_is_trained_end_to_end_and_kept(
    name: str, tmp_path: Path, people: tuple[People, People]
) -> None:
    fit, val = people
    workshop = FullWorkshop(tmp_path, None, torch.device("cpu"), lambda people: SHORT, seeded_layers)
    found = workshop.embed(name, fit, val, fit, 0, 8)
    assert found.probes.shape == (2, 3, REGIONS, 8)
    assert found.gallery.shape == (6, REGIONS, 8)
    np.testing.assert_allclose(np.linalg.norm(found.probes, axis=-1), 1, atol=1e-4)
    (path,) = (tmp_path / "trained").glob(f"{name}-8-full-*.pt")
    content = read_trained(path)
    assert content is not None
    before, after = seeded_layers().state_dict(), content["trunk"]
    assert not torch.equal(before["whole.weight"], after["whole.weight"])
    assert torch.equal(before["cells.weight"], after["cells.weight"]) == ("cells" not in SYSTEMS[name].build(8).reads)
    again = workshop.embed(name, fit, val, fit, 0, 8)
    assert again.seconds == 0
    np.testing.assert_allclose(again.probes, found.probes, atol=1e-6)
    np.testing.assert_allclose(again.gallery, found.gallery, atol=1e-6)


def test_what_is_frozen_is_trained_no_further(people: tuple[People, People]) -> None:
    live = LiveSet(people[0], seeded_layers(), READS)
    live.train_upper(norms=True)
    assert len(live.trained()) == 4
    assert live.photos(torch.arange(2))["whole"].requires_grad
    live.freeze()
    assert live.trained() == []
    assert not live.drawings(torch.arange(2))["whole"].requires_grad


@pytest.mark.slow
def test_the_stem_stays_as_it_is() -> None:
    layers = CropLayers(None, None)
    stem = layers.trunk.until_mixed_6e[: len(STEM_LAYERS)]
    trained = {id(parameter) for parameter in layers.train_upper(norms=True)}
    assert not trained & {id(parameter) for parameter in stem.parameters()}
    assert len(trained) + len(list(stem.parameters())) == len(list(layers.parameters()))
    assert layers.trunk.until_mixed_7c.training
    assert not any(module.training for layer in stem for module in layer.modules())
    layers.train_upper(norms=False)
    assert not any(module.training for module in layers.modules())
    ink = torch.zeros(1, REGIONS, dtype=torch.bool)
    ink[0, [0, 1, 5]] = True
    maps = layers(torch.rand(1, 3, 300, 300), ink, READS)
    assert maps["whole"].shape == (1, 2048, 8, 8)
    assert maps["cells"].shape == (1, 13, 768, 8, 8)
    assert maps["cells"].detach().abs().amax(dim=(2, 3, 4))[0].bool().tolist() == ink[0, 1:].tolist()
    maps["cells"].sum().backward()
    assert next(layers.trunk.until_mixed_6e[-1].parameters()).grad is not None


def test_rates_are_the_paper_s_and_stay_so(people: tuple[People, People]) -> None:
    fit, _ = people
    recipe = paper_recipe(fit)
    assert (recipe.epochs, recipe.batch, recipe.rate, recipe.trunk_rate) == (20, 32, 5e-3, 5e-4)
    two = paper_recipe(People(fit.data, ("photo3/image0001",), fit.episodes, 3))
    assert (two.rate, two.trunk_rate) == (5e-4, 5e-5)
    head, trunk = (torch.nn.Parameter(torch.ones(1)) for _ in range(2))
    groups = [{"params": [head], "lr": recipe.rate}, {"params": [trunk], "lr": recipe.trunk_rate}]
    optimiser, schedule = _optimiser(groups, recipe, 10)
    for _ in range(3):
        (head + trunk).sum().backward()
        optimiser.step()
        schedule.step()
    assert [group["lr"] for group in optimiser.param_groups] == [5e-3, 5e-4]


def test_without_a_gpu_it_is_refused(tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / "tiny-fit.txt").write_text((tiny_fs2k / "fit.txt").read_text())
    (tmp_path / "tiny-val.txt").write_text((tiny_fs2k / "val.txt").read_text())
    command = ["report", "--data", str(tiny_fs2k), "--splits", str(tmp_path), "--data-sets", "tiny", "--full"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert "--full takes days without a GPU, and torch finds none here" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_report_and_the_export_of_what_it_trained(
    tiny_fs2k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "RECIPES", {"photo1": SHORT})
    for part in ("fit", "val"):
        (tmp_path / f"tiny-{part}.txt").write_text((tiny_fs2k / f"{part}.txt").read_text())
    command = ["report", "--data", str(tiny_fs2k), "--splits", str(tmp_path), "--data-sets", "tiny", "--full"]
    command += ["--device", "cpu", "--systems", "b2", "single-pass", "--seeds", "1", "--model-stages", "2"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    rows = (tmp_path / "out" / "table1.csv").read_text()
    assert 'tiny,"B2 triplet, all stages",fine-tuned,2,1,6' in rows
    assert "single pass" not in rows
    (path,) = (tmp_path / "out" / "cache" / "trained").glob("b2-16-full-*.pt")
    assert main(["export", str(path), str(tmp_path / "b2.onnx")]) == 0
    assert OnnxEncoder.open(tmp_path / "b2.onnx").size_px == 300
