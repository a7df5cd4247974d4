import pytest

from indexer.errors import ConfigError

pytest.importorskip("torch", reason="needs the train extra: pip install 'mgrl[train]'")

from training.settings import Setup


def test_workers_are_at_most_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 3})
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert Setup(workers=2).workers == 2
    with pytest.raises(ConfigError, match="workers must be from 0 to 2, the cores this process may use, got 3"):
        Setup(workers=3)
