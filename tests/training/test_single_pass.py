"""The single-pass encoder's rows: unit, in region order, and drawn together by granularity."""

import pytest

from indexer.regions import REGION_IDS

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")
import torch.nn.functional as F  # noqa: E402

from training.encoder.single_pass import SPREADS, SinglePassEncoder, draw_together  # noqa: E402
from training.losses import in_batch_softmax  # noqa: E402


@pytest.mark.parametrize("spread", [0.1, 0.45, 1.0])
def test_rows_drawn_together_stay_unit_and_keep_their_order_of_distance(spread: float) -> None:
    rows = F.normalize(torch.randn(6, 15, generator=torch.Generator().manual_seed(0)), dim=-1)
    drawn = draw_together(rows, spread)
    assert drawn.shape == (6, 15 if spread == 1 else 16)
    torch.testing.assert_close(drawn.norm(dim=-1), torch.ones(6))
    apart, closer = torch.cdist(rows, rows), torch.cdist(drawn, drawn)
    off = ~torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(closer[off], spread * apart[off], atol=1e-4, rtol=1e-3)


def test_the_whole_face_and_the_quarters_differ_less_than_the_ninths() -> None:
    torch.manual_seed(0)
    model = SinglePassEncoder(8, 96)
    photos = torch.randint(0, 256, (3, 96, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        rows = model(photos, torch.zeros(0, 96, 96, dtype=torch.uint8))
    for granularity, spread in SPREADS.items():
        ids = REGION_IDS[granularity]
        own = rows[:, ids.start : ids.stop]
        assert (own[0] - own[1]).norm(dim=-1).max() <= 2 * spread + 1e-6
        if spread < 1:
            torch.testing.assert_close(own[..., -1], torch.full_like(own[..., -1], (1 - spread**2) ** 0.5))


def test_the_loss_of_a_region_alone_does_not_feel_its_spread() -> None:
    generator = torch.Generator().manual_seed(1)
    probes, photos = (F.normalize(torch.randn(4, 14, 15, generator=generator), dim=-1) for _ in range(2))
    ink = torch.zeros(4, 14, dtype=torch.bool)
    ink[:, 0] = True  # the whole face alone
    # Eq. (3) with a temperature that takes the spread along is the same; so must be the region's own term.
    plain = in_batch_softmax(probes, photos, ink, 0.2, spreads={1: 1.0, 2: 1.0, 3: 1.0})
    drawn = in_batch_softmax(
        draw_together(probes, 0.5), draw_together(photos, 0.5), ink, 0.1, spreads={1: 0.5, 2: 0.5, 3: 0.5}
    )
    torch.testing.assert_close(drawn, plain, atol=1e-4, rtol=1e-4)
