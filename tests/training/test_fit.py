"""The network, its loss, its loop and its export, on a handful of drawn people; needs the `train` extra."""

import json
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.encoding import DEFAULT_MODEL, OnnxEncoder, default_threads
from indexer.errors import ConfigError, DataError, ModelError
from service.cli import main

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from training.batches import EpochBatches, PairSet, batch_sizes  # noqa: E402
from training.data import find_pair, read_split  # noqa: E402
from training.encoder.checkpoint import load_checkpoint  # noqa: E402
from training.encoder.mgrl import MgrlEncoder  # noqa: E402
from training.encoder.single_pass import SinglePassEncoder, pool_regions  # noqa: E402
from training.encoder.trunk import FrozenNormConv, inception_v3, mixed_5d  # noqa: E402
from training.episodes import make_episodes  # noqa: E402
from training.export import PARITY, export, parity  # noqa: E402
from training.fit import Watcher, fit  # noqa: E402
from training.metrics import Scores  # noqa: E402
from training.settings import Augmentation, FitConfig, Setup  # noqa: E402
from training.validate import NOTED, Validation  # noqa: E402


def pair_set(root: Path, split: str, folder: Path) -> PairSet:
    pairs = [find_pair(root, name) for name in read_split(root / split)]
    return PairSet(pairs, make_episodes(pairs, folder, 8, workers=1), 192)


def test_the_trunk_with_folded_norms_is_torchvisions() -> None:
    torch.manual_seed(0)
    network = inception_v3()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    images = torch.rand(1, 3, 192, 192)
    with torch.no_grad():
        x = images
        for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"):
            x = network.get_submodule(name)(x)
        frozen = torch.nn.Sequential(
            *(FrozenNormConv(network.get_submodule(f"Conv2d_{n}_3x3")) for n in ("1a", "2a", "2b")), network.maxpool1
        )
        folded = frozen(images)
        torch.testing.assert_close(folded, x, rtol=1e-4, atol=1e-5)
        for module in frozen:
            if isinstance(module, FrozenNormConv):
                module.fold()
        torch.testing.assert_close(frozen(images), x, rtol=1e-4, atol=1e-5)


def test_the_shared_weights_fit_the_trunk(shared: Path) -> None:
    trunk = mixed_5d(shared / "weights" / "inception_v3.safetensors")
    with torch.no_grad():
        assert trunk(torch.rand(1, 3, 192, 192)).shape == (1, 288, 21, 21)


def test_a_file_without_the_trunk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="does not hold Inception-V3"):
        mixed_5d(tmp_path / "x.safetensors")


def test_pooling_equals_a_slow_loop() -> None:
    features = torch.randn(2, 3, 21, 21)
    pooled = pool_regions(features)
    assert pooled.shape == (2, 14, 15)
    cell = features[:, :, 7:14, 14:21]  # 3x3, row 1, column 2: region 5 + 5
    torch.testing.assert_close(pooled[:, 10, :3], cell.amax(dim=(2, 3)))
    torch.testing.assert_close(pooled[:, 10, 3:6], cell[:, :, :4, :4].mean(dim=(2, 3)))
    torch.testing.assert_close(pooled[:, 10, 12:], cell[:, :, 3:, 3:].mean(dim=(2, 3)))
    lower_left = features[:, :, 10:, :11]  # 2x2 cells overlap by one row and column of the 21
    torch.testing.assert_close(pooled[:, 3, :3], lower_left.amax(dim=(2, 3)))


def test_batches_are_decided_by_seed_and_epoch(tiny_fs2k: Path, tmp_path: Path) -> None:
    pairs = pair_set(tiny_fs2k, "fit.txt", tmp_path)
    one, two, other = (EpochBatches([pairs], 4, Augmentation(), 0, e)[0] for e in (1, 1, 2))
    assert torch.equal(one.sketches, two.sketches)
    assert torch.equal(one.photos, two.photos)
    assert not torch.equal(one.sketches, other.sketches)
    assert one.ink.any(dim=1).all()
    assert one.sketches.shape == one.photos.shape[:3] == (4, 192, 192)


@pytest.mark.parametrize(("pairs", "batch", "sizes"), [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (3, 4, [3]), (8, 4, [4, 4])])
def test_a_small_remainder_is_dropped(pairs: int, batch: int, sizes: list[int]) -> None:
    assert batch_sizes(pairs, batch) == sizes


def test_a_flip_is_joint(tiny_fs2k: Path, tmp_path: Path) -> None:
    """Photo and sketch of one person must be mirrored together, or the regions would be swapped."""
    pairs = pair_set(tiny_fs2k, "fit.txt", tmp_path)
    pairs.photos[:, :, :96], pairs.photos[:, :, 96:] = 0, 255
    pairs.scans[:, :, :96], pairs.scans[:, :, 96:] = 255, 0
    plain = Augmentation(moved_share=0, scan_share=1, grey_share=0, thinned_share=0, wobbly_share=0)
    flips = set()
    for epoch in range(6):
        batch = EpochBatches([pairs], 4, plain, 0, epoch)[0]
        for sketch, photo in zip(batch.sketches.float(), batch.photos.float(), strict=True):
            assert (sketch[:, :90].mean() > sketch[:, 102:].mean()) == (photo[:, :90].mean() < photo[:, 102:].mean())
            flips.add(bool(photo[:, :90].mean() < photo[:, 102:].mean()))
    assert flips == {True, False}


def test_train_stop_resume_export_evaluate(tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    data, val = ("--data", str(tiny_fs2k)), str(tiny_fs2k / "val.txt")
    arguments = ["train", *data, "--fit", str(tiny_fs2k / "fit.txt"), "--val", val, "--out", str(out), "--dim", "8"]
    arguments += ["--weights", "random", "--stages", "8", "--batch", "4", "--validate-every", "1", "--stem-epochs", "1"]
    arguments += ["--align-rounds", "1", "--align-epochs", "1"]
    assert main([*arguments, "--epochs", "2"]) == 0
    first = torch.load(out / "checkpoint.pt", weights_only=True)
    assert first["state"]["epoch"] == 2
    assert [record["epoch"] for record in first["state"]["history"]] == [1, 2]
    record = json.loads((out / "run.json").read_text())
    assert record["validations"] == first["state"]["history"]
    assert first["state"]["history"][0].keys() == {*NOTED, "val"}
    assert (record["data"]["val"][0]["split"], record["data"]["val"][0]["pairs"], record["stages"]) == ("val", 2, 8)
    assert record["weights"] == "random"
    assert list((out / "tensorboard").glob("events*"))
    assert main([*arguments, "--epochs", "2"]) == 0  # nothing is left to do, and nothing is trained again
    again = torch.load(out / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(first["model"][name], again["model"][name]) for name in first["model"])
    (out / "best.pt").rename(tmp_path / "kept.pt")
    assert main([*arguments, "--epochs", "2"]) == 1
    assert "best.pt is gone, and this run has ended: put it back" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "kept.pt"), str(tmp_path / "model.onnx")]) == 0
    assert "8-d, 192 px" in capsys.readouterr().out
    model = load_checkpoint(tmp_path / "kept.pt").model
    assert parity(model, OnnxEncoder.open(tmp_path / "model.onnx"), images=3) < PARITY
    evaluation = ["evaluate", *data, "--split", val, "--gallery", str(tiny_fs2k / "fit.txt"), "--stages", "8"]
    assert main([*evaluation, "--model", str(tmp_path / "model.onnx")]) == 0
    printed = capsys.readouterr().out
    assert "2 drawings, 8 stages, aligned" in printed
    assert "among 6" in printed


@pytest.fixture
def data(tiny_fs2k: Path, tmp_path: Path) -> tuple[list[PairSet], list[Validation]]:
    sets = [pair_set(tiny_fs2k, "fit.txt", tmp_path)]
    return sets, [Validation("val", pair_set(tiny_fs2k, "val.txt", tmp_path), sets[0].photos)]


PERFECT = Scores(100, 100, 62, 62, 100, 100, 100, 62, (), ())


class Stopper(Watcher):
    """Stops, or falls, after so many steps in all; remembers what validations said."""

    def __init__(self, after: int, *, fall: bool = False) -> None:
        self.after, self.fall, self.done = after, fall, 0
        self.histories: list[list[int]] = []

    def stepped(self, step: int, steps: int, loss: float, rates: Sequence[float]) -> None:
        self.done = step
        if self.fall and step == self.after:
            raise ZeroDivisionError

    def validated(self, history: Sequence[Mapping[str, Any]], step: int) -> None:
        self.histories.append([record["epoch"] for record in history])

    def should_stop(self) -> bool:
        return self.done == self.after


SMALL = FitConfig(
    dim=4, epochs=3, stem_epochs=1, batch=2, validate_every=1, validate_stages=1, align_rounds=1, align_epochs=1
)


def checkpoint(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return content


def test_resuming_reaches_the_weights_of_an_unbroken_run(
    data: tuple[list[PairSet], list[Validation]], tmp_path: Path
) -> None:
    """Two steps an epoch: stopped in the middle of the second, fallen in the middle of the third, gone on with."""
    config = replace(SMALL, ema=0.9)
    fit(config, *data, tmp_path / "whole", None)
    stopper, fallen, rest = Stopper(3), Stopper(6, fall=True), Stopper(0)
    several = Setup(workers=min(2, default_threads()))
    assert fit(config, *data, tmp_path / "broken", None, stopper) is None
    assert checkpoint(tmp_path / "broken")["state"]["step"] == 1
    with pytest.raises(ZeroDivisionError):
        fit(config, *data, tmp_path / "broken", None, fallen, Setup(workers=0, checkpoint_minutes=0))
    assert fit(config, *data, tmp_path / "broken", None, rest, several) == tmp_path / "broken" / "best.pt"
    assert (stopper.histories, fallen.histories, rest.histories) == ([[1]], [[1, 2]], [[1, 2, 3]])
    whole, broken = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "broken")
    for part in ("model", "average"):
        assert all(torch.equal(whole[part][name], broken[part][name]) for name in whole[part])
    assert not torch.equal(whole["model"]["heads.0.weight"], whole["average"]["heads.0.weight"])
    last = load_checkpoint(tmp_path / "whole" / "checkpoint.pt").model.state_dict()
    assert torch.equal(last["heads.0.weight"], whole["average"]["heads.0.weight"])


def test_a_run_of_other_settings_or_data_is_not_gone_on_with(
    data: tuple[list[PairSet], list[Validation]], tmp_path: Path
) -> None:
    fit(SMALL, *data, tmp_path, None, Stopper(1))
    with pytest.raises(
        ConfigError, match=r"other settings \(epochs 3 there, 4 now; seed 0 there, 1 now\); repeat them"
    ):
        fit(replace(SMALL, epochs=4, seed=1), *data, tmp_path, None)
    with pytest.raises(ConfigError, match=r"began from other weights \(random there, default now\); name those with"):
        fit(SMALL, *data, tmp_path, DEFAULT_MODEL)
    older = checkpoint(tmp_path)
    del older["weights"]
    torch.save(older, tmp_path / "checkpoint.pt")
    assert fit(SMALL, *data, tmp_path, DEFAULT_MODEL, Stopper(2)) is None
    data[0][0].names.reverse()
    with pytest.raises(ConfigError, match="holds a run on other people or stages"):
        fit(SMALL, *data, tmp_path, None)


def test_weights_that_run_away_end_the_run(data: tuple[list[PairSet], list[Validation]], tmp_path: Path) -> None:
    config = replace(SMALL, head_rate=1e35, align_epochs=0)
    with pytest.raises(ConfigError, match="the loss is nan: the weights have run away"):
        fit(config, *data, tmp_path, None)


def test_training_ends_early_without_improvement_also_where_the_best_weights_were_lost(
    data: tuple[list[PairSet], list[Validation]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([50.0, 60.0, 55.0, 60.0, 70.0])
    monkeypatch.setattr("training.fit.validate", lambda *given: replace(PERFECT, m_at_b=next(scores)))
    config = replace(SMALL, epochs=9, batch=4, patience=2, align_epochs=0, stem_epochs=0)
    fit(config, *data, tmp_path, None, Stopper(3))
    (tmp_path / "best.pt").unlink()  # the best from here on takes its place
    fit(config, *data, tmp_path, None)
    assert [record["m_at_b"] for record in checkpoint(tmp_path)["state"]["history"]] == [50, 60, 55, 60]
    fit(config, *data, tmp_path, None)  # and stays ended
    assert checkpoint(tmp_path)["state"]["epoch"] == 4
    assert load_checkpoint(tmp_path / "best.pt").history[-1]["m_at_b"] == 60


def test_half_precision_learns_nearly_the_same(data: tuple[list[PairSet], list[Validation]], tmp_path: Path) -> None:
    """On a CPU, for what a GPU runs: the trunk in half, rows and loss in full."""
    losses: dict[str, list[float]] = {}
    for precision in ("float32", "bfloat16", "float16"):

        class Listener(Watcher):
            def stepped(self, step: int, steps: int, loss: float, rates: Sequence[float]) -> None:
                losses.setdefault(precision, []).append(loss)  # noqa: B023  # called before the next round

        config = replace(SMALL, epochs=1, align_epochs=0)
        fit(config, *data, tmp_path / precision, None, Listener(), Setup(precision=precision))
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["bfloat16"] != losses["float32"]
    assert checkpoint(tmp_path / "float16")["scaler"]["scale"] > 1
    assert all(
        value.dtype == torch.float32
        for value in checkpoint(tmp_path / "bfloat16")["model"].values()
        if value.is_floating_point()
    )


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    data: tuple[list[PairSet], list[Validation]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(SMALL, *data, tmp_path, None, Stopper(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # a write beyond it fails as on a full disk
    try:
        with pytest.raises(
            DataError, match=r"cannot write .*checkpoint\.pt: File too large; it takes \d+ MB .*the one before is whole"
        ):
            fit(SMALL, *data, tmp_path, None, Stopper(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("*.tmp"))
    assert checkpoint(tmp_path)["state"]["step"] == 1
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"No space left on device; it takes \d+ MB and 3 MB are free: free some"):
        fit(SMALL, *data, tmp_path / "other", None)


def test_a_checkpoint_that_is_torn_is_refused(data: tuple[list[PairSet], list[Validation]], tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(ModelError, match=r"checkpoint\.pt is torn or foreign; remove it to train anew"):
        fit(FitConfig(), *data, tmp_path, None)
    fit(SMALL, *data, tmp_path / "run", None, Stopper(1))
    content = checkpoint(tmp_path / "run")
    del content["model"]["heads.0.weight"]
    torch.save(content, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(ModelError, match=r"written by another version or network .*remove it to train anew"):
        fit(SMALL, *data, tmp_path / "run", None)


def test_data_that_cannot_be_trained_on_is_refused(
    data: tuple[list[PairSet], list[Validation]], tmp_path: Path
) -> None:
    sets, validations = data
    with pytest.raises(DataError, match="one to select on, got 1 and 0"):
        fit(FitConfig(), sets, [], tmp_path, None)
    leak = [Validation("leak", sets[0], sets[0].photos)]
    with pytest.raises(DataError, match="4 people are both trained and selected on, such as photo1/image0001"):
        fit(FitConfig(), sets, leak, tmp_path, None)
    sets[0].names[1:] = []
    with pytest.raises(DataError, match="at least 2 pairs, one has photo1/image0001 only"):
        fit(FitConfig(), sets, validations, tmp_path, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--batch", "0"], "batch must be at least 1, got 0"),
        (["--batch", "1"], "batch must be at least 2, got 1"),
        (["--trunk-rate", "-1"], "trunk_rate must be 0 or more, got -1.0"),
        (["--head-rate", "inf"], "head_rate must be 0 or more, got inf"),
        (["--dim", "-1"], "dim must be at least 1, got -1"),
        (["--dim", "1"], "dim must be at least 2, got 1"),
        (["--validate-every", "0"], "validate_every must be at least 1, got 0"),
        (["--stem-epochs", "-1"], "stem_epochs must be 0 or more, got -1"),
        (["--ema", "1"], "ema must be 0 or a share below 1 such as 0.999, got 1.0"),
        (["--patience", "-1"], "patience must be 0 or more, got -1"),
        (["--workers", "4096"], "workers must be from 0 to "),
        (["--checkpoint-minutes", "nan"], "checkpoint_minutes must be 0 (after every step) or more, got nan"),
        (["--seed", "-1"], "seed must be 0 or more, got -1"),
        (["--seed", str(2**64)], "seed must be below 2**64, got 18446744073709551616"),
        (["--moved-share", "nan"], "moved_share must be a share from 0 to 1, got nan"),
        (["--moved-share", "1.5"], "moved_share must be a share from 0 to 1, got 1.5"),
        (["--stages", "0"], "a drawing must have at least 1 stage, got 0"),
        (["--weights", "imagenett"], "there is no file imagenett to start from; --weights takes default, imagenet, "),
        (["--val", "a/val.txt", "b/val.txt"], "--fit and --val must name as many split files, got 1 and 2"),
        (["--fit", "a", "b", "--val", "a/v.txt", "b/v.txt"], "the --val files must differ in name"),
        (["--val", "a/epoch.txt"], "a --val file must not be called epoch, m_at_a, m_at_b, seconds or w_m_at_b"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(
    tiny_fs2k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    splits = ["--fit", str(tiny_fs2k / "fit.txt"), "--val", str(tiny_fs2k / "val.txt")]
    assert main(["train", "--data", str(tiny_fs2k), *splits, "--out", str(tmp_path / "run"), *arguments]) == 1
    found = capsys.readouterr().err
    assert found.startswith(f"mgrl train: {message}")
    assert found.count("\n") == 1


def test_export_keeps_the_model_and_the_batch_is_dynamic(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SinglePassEncoder(dim=8).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert export(model, tmp_path / "model.onnx") < PARITY
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    encoder = OnnxEncoder.open(tmp_path / "model.onnx")
    canvases = np.random.default_rng(0).integers(0, 256, (3, 192, 192), dtype=np.uint8)
    with torch.no_grad():
        expected = model(torch.zeros(0, 192, 192, 3, dtype=torch.uint8), torch.from_numpy(canvases)).numpy()
    np.testing.assert_allclose(encoder.encode_sketches(canvases), expected, atol=PARITY)


def test_a_model_is_not_written_over_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder; name the ONNX file to write"):
        export(torch.nn.Identity(), tmp_path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"other": 1}, tmp_path / "x.pt")
    torch.save({"config": {"dim": "wide", "size_px": 192}, "model": {}}, tmp_path / "y.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("weights")
    for name in ("x.pt", "y.pt", "empty.pt", "text.pt", "missing.pt", ""):
        with pytest.raises(ModelError, match="is not a checkpoint"):
            load_checkpoint(tmp_path / name)


@pytest.mark.slow
def test_the_released_network_gives_fourteen_unit_rows() -> None:
    network = MgrlEncoder(dim=16).eval()
    with torch.inference_mode():
        rows = network(torch.rand(1, 3, 192, 192))
    assert rows.shape == (1, 14, 16)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(1, 14))


@pytest.mark.gpu
def test_the_network_runs_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    model = SinglePassEncoder(dim=8).eval().cuda()
    with torch.no_grad():
        photos = torch.zeros(2, 192, 192, 3, dtype=torch.uint8, device="cuda")
        assert model(photos, photos[:1, ..., 0]).shape == (3, 14, 8)
