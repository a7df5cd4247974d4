import numpy as np
import numpy.typing as npt
import pytest

from tests.conftest import unit_rows


@pytest.fixture
def embeddings() -> npt.NDArray[np.float32]:
    """60 photos, of which four are equal to the first."""
    rows = unit_rows(np.random.default_rng(0), 60)
    rows[30:34] = rows[0]
    return rows


@pytest.fixture
def probe() -> npt.NDArray[np.float32]:
    return unit_rows(np.random.default_rng(1), 1)[0]
