import re
from dataclasses import asdict
from pathlib import Path

import pytest

from indexer.encoding import DEFAULT_MODEL
from indexer.errors import ConfigError
from training.settings import FitConfig, Setup


def test_the_defaults_are_those_that_the_shipped_model_was_trained_with() -> None:
    card = Path(DEFAULT_MODEL).with_name("README.md").read_text()
    (settings,) = re.findall(r"^- Settings: (.*)\.$", card, re.MULTILINE)
    defaults = asdict(FitConfig())
    defaults |= defaults.pop("augmentation")
    for setting in settings.split(", "):
        name, value = setting.split()
        assert defaults[name] == float(value), name


def test_workers_are_at_most_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 3})
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert Setup(workers=2).workers == 2
    with pytest.raises(ConfigError, match="workers must be from 0 to 2, the cores this process may use, got 3"):
        Setup(workers=3)
