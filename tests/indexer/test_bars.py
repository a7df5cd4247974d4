import re
from pathlib import Path

from indexer.bars import bars, write_times


def test_a_bar_ends_at_the_median_on_a_log_axis() -> None:
    svg = bars({"one": [1.0], "ten": [10.0] * 3, "hundred": [90.0, 100.0, 110.0]})
    widths = [float(width) for width in re.findall(r'<rect x="230" y="[\d.]+" width="([\d.]+)"', svg)]
    assert widths[0] == 0
    # The axis ends at 1000: three decades in 460 px.
    assert [round(width / 460 * 3, 2) for width in widths[1:]] == [1.0, 2.0]
    assert svg.count('stroke="#23211e"') == 1  # only the row that varies


def test_names_are_text() -> None:
    assert "<script>" not in bars({"<script>": [2.0, 3.0]})


def test_a_page_without_times_has_its_ratios(tmp_path: Path) -> None:
    write_times(tmp_path / "made" / "page.html", "a title", {}, {"disk_over_vectors": 1.25})
    html = (tmp_path / "made" / "page.html").read_text()
    assert "disk_over_vectors</td><td>1.25" in html
    assert "<svg" not in html
