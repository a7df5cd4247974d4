import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.device import choose_device
from indexer.errors import ConfigError
from indexer.exact import exact_search
from service.cli import main
from training.bench_scale import Scale
from training.bench_search import SearchBench, ratios
from training.exactness import differences


def test_ratios_are_those_of_the_named_rows_and_only_of_measured_ones() -> None:
    rows = {
        "read": 30.0,
        "exact_14_inked": 12.0,
        "exact_5_inked": 6.0,
        "exact_filtered_14_inked": 3.0,
        "exact_batch32_14_inked": 96.0,
    }
    assert ratios(rows, inked=5, batch=32) == {
        "exact_over_read": 0.4,
        "exact_5_inked_over_read": 0.2,
        "batch32_over_single": 0.25,
        "filtered_over_unfiltered": 0.25,
    }
    assert ratios(rows | {"14_lists_14_inked": 120.0}, 5, 32)["exact_over_14_lists"] == 0.1


def test_differences_are_counted() -> None:
    bench = SearchBench.build(photos=500, dim=4, inked=5, batch=3, threads=1)
    assert bench.differences(4) == 0
    bench.photos[:] = bench.photos[::-1].copy()  # brute force now looks at other photos than the index
    assert bench.differences(4) == 8


def test_every_job_does_what_its_row_says(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = SearchBench.build(photos=3000, dim=8, inked=5, batch=3, threads=2)
    jobs = bench.jobs(with_lists=True)
    total = jobs["read"]()
    assert isinstance(total, np.floating)
    np.testing.assert_allclose(total, bench.photos.sum(dtype=np.float64), rtol=1e-3, atol=1)
    rows, _ = jobs["exact_14_inked"]()  # type: ignore[misc]
    monkeypatch.setattr("training.bench_search._LIST_LENGTH", 3000)  # with whole lists nothing can be missed
    assert list(rows) == list(jobs["14_lists_14_inked"]())  # type: ignore[call-overload]
    monkeypatch.setattr("training.bench_search._REFINED", 3000)
    assert list(bench.jobs(with_lists=True)["concatenated_14_inked"]()) == list(rows)  # type: ignore[call-overload]
    assert len(jobs["exact_batch3_5_inked"]()) == 3  # type: ignore[arg-type]


def test_the_command_writes_rows_and_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, page = tmp_path / "search.json", tmp_path / "pages" / "search.html"
    options = ["--photos", "2000", "--dim", "8", "--inked", "3", "--batch", "4", "--threads", "1", "--rounds", "2"]
    more = ["--check", "30", "--larger", "3000", "--open"]
    assert main(["bench", "search", *options, *more, "--json", str(file), "--html", str(page)]) == 0
    html = page.read_text()
    assert "p99" in html
    assert html.count("<rect") == len(json.loads(file.read_text())["rows"])
    assert "exact_over_read" in html
    written = json.loads(file.read_text())
    assert written["differences_from_brute_force"] == 0
    assert set(written["recalls"]) == {
        f"{name}_{inked}_inked"
        for name in ("14_lists", "concatenated", "approximate", "budget_2ms")
        for inked in (3, 14)
    }
    assert written["recalls"]["approximate_14_inked"] == 1  # too few photos to leave any out
    assert 0.2 < written["recalls"]["14_lists_14_inked"] <= 1
    assert set(written["ratios"]) == {
        "exact_over_read",
        "exact_3_inked_over_read",
        "exact_over_14_lists",
        "batch4_over_single",
        "filtered_over_unfiltered",
        "exact_3k_over_2k",
        "approximate_over_exact",
        "open_2k_s",
    }
    # The float32 vectors once, and some hundred bytes for all photos together.
    assert all(14 * 8 * 4 < of["bytes_a_photo"] < 14 * 8 * 4 + 1 for of in written["sizes"].values())
    assert all(ms > 0 for ms in written["rows"].values())
    assert "0 searches of 30 and 4 differ from brute force" in capsys.readouterr().out


def test_memory_is_that_of_the_vectors_and_of_what_is_scanned(tmp_path: Path) -> None:
    scale = Scale.build(tmp_path, 12_000, 16)
    # In one byte a number, with a byte a region and its photo's place; block centres, and what calibration took.
    least = 14 * 16 * 4 + 14 * (16 + 1) + 8
    assert least < scale.bytes_a_photo < 1.05 * least + 3_000_000 / 12_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--photos", "0"), "--photos must be at least 1, got 0"),
        (("--batch", "0"), "--batch must be at least 1, got 0"),
        (("--inked", "15"), "--inked 1 to 14, got"),
        (("--dim", "1"), "--dim at least 2"),
        (("--threads", "0"), "--threads must be at least 1"),
        (("--check", "-1"), "--check must be at least 0, got -1"),
        (("--larger", "1000000"), "--larger must be more than --photos, got 1000000 and 1000000"),
    ],
)
def test_options_out_of_range_are_named(
    options: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "search", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.skipif(choose_device("auto") == "cuda", reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.granular.torch_gpus", lambda: ())  # without waiting for torch's import
    assert main(["bench", "search", "--photos", "100", "--device", "cuda"]) == 1
    assert "device cuda needs" in capsys.readouterr().err


@pytest.mark.usefixtures("without_numba")
def test_without_numba_the_bench_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'mgrl\[fast\]'"):
        SearchBench.build(photos=100, dim=4, inked=5, batch=3, threads=1)


def test_a_wrong_answer_is_counted_among_random_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert differences(60, 300) == 0

    def swapped(*arguments: Any) -> Any:
        rows, distances = exact_search(*arguments)
        return rows[::-1], distances

    monkeypatch.setattr("training.exactness.exact_search", swapped)
    assert differences(60, 300) > 30


@pytest.mark.slow
def test_a_thousand_random_queries_over_galleries_of_all_sizes_are_exact() -> None:
    assert differences(1000, 20_000, seed=1) == 0
