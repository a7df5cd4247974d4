"""The loss: it ranks by Eq. (3), is a plain cross-entropy, and stays finite."""

import numpy as np
import pytest

from indexer.fusion import fused_distance

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from training.losses import in_batch_softmax, pairwise_region_distances, region_weights  # noqa: E402


def unit(*shape: int, seed: int = 0) -> "torch.Tensor":
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_loss_ranks_by_eq_3() -> None:
    probes, photos = unit(5, 14, 16), unit(7, 14, 16, seed=1)
    ink = torch.rand(5, 14, generator=torch.Generator().manual_seed(2)) > 0.5
    fused = torch.einsum("rbn,br->bn", pairwise_region_distances(probes, photos), region_weights(ink))
    for number in range(5):
        expected = fused_distance(probes[number].numpy(), photos.numpy(), ink[number].numpy())
        np.testing.assert_allclose(fused[number].numpy(), expected, atol=1e-3)


def test_the_loss_is_cross_entropy_over_the_photos_of_the_batch() -> None:
    probes, photos = unit(6, 14, 16), unit(6, 14, 16, seed=1)
    ink = torch.ones(6, 14, dtype=torch.bool)
    found = in_batch_softmax(probes, photos, ink, 0.125, label_smoothing=0, region_share=0)
    fused = torch.einsum("rbn,br->bn", pairwise_region_distances(probes, photos), region_weights(ink))
    each = []
    for row in range(6):
        scores = [-float(fused[row, n]) * 8 for n in range(6)]
        each.append(np.log(np.sum(np.exp(scores))) + float(fused[row, row]) * 8)
    assert float(found) == pytest.approx(float(np.mean(each)), rel=1e-4)


def test_gradients_stay_finite_where_a_sketch_equals_its_photo() -> None:
    rows = unit(4, 14, 16).requires_grad_()
    in_batch_softmax(rows, rows.detach(), torch.ones(4, 14, dtype=torch.bool)).backward()
    assert torch.isfinite(rows.grad).all()


def test_sketches_without_ink_do_not_spoil_the_loss() -> None:
    loss = in_batch_softmax(unit(3, 14, 16), unit(3, 14, 16, seed=1), torch.zeros(3, 14, dtype=torch.bool))
    assert float(loss) == pytest.approx(np.log(3), rel=1e-5)
