import hashlib

import numpy as np
import pytest

from indexer import register
from indexer.register import Register


def content(n: int) -> bytes:
    return hashlib.sha256(str(n).encode()).digest()


@pytest.mark.parametrize("merge_at", [1, 7, 10_000])
def test_a_register_answers_as_a_dictionary_does(merge_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "_MERGE_AT", merge_at)
    rng = np.random.default_rng(0)
    known = {f"old{n}": content(n % 40) for n in range(50)}
    kept = Register(known.items())
    for step in range(600):
        photo_id, of = f"{['old', 'new'][step % 2]}{rng.integers(60)}", content(int(rng.integers(100)))
        assert kept.has_id(photo_id) == (photo_id in known)
        assert kept.has(photo_id, of) == (known.get(photo_id) == of)
        assert kept.has_content(of) == (of in known.values())
        kept.put(photo_id, of)
        known[photo_id] = of
