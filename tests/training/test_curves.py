"""TensorBoard's points: nothing missing, and nothing twice after a run was gone on with."""

import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from training.curves import Curves


def test_curves_hold_loss_rates_and_validations_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the train extra: pip install 'mgrl[train]'")

    for first in (1, 16):  # the second call goes on from step 15, the first had come to 20
        curves = Curves(tmp_path)
        for step in range(first, 21 if first == 1 else 31):
            curves.stepped(step, 30, loss=float(first), rates=(0.1, 0.2))
        record = {"seconds": 5, "m_at_b": 50.0, "val": 50.0, "m_at_a": {"val": 90.0}, "w_m_at_b": {"val": 30.0}}
        curves.validated(record, 10 * first)
        curves.close()
        time.sleep(1.1)  # event files are named by the second
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(point.step, point.value) for point in events.Scalars("loss")] == [(10, 1.0), (20, 16.0), (30, 16.0)]
    tags = {"loss", "rate/trunk", "rate/heads", "seconds", "validation/m_at_b", "val/m_at_a", "val/m_at_b"}
    assert set(events.Tags()["scalars"]) == {*tags, "val/w_m_at_b"}
