import io
import json
import math
from pathlib import Path

import pytest

from indexer.console import print_table, progress, write_json
from indexer.errors import DataError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that `progress` sees; set the only entry."""
    now = [0.0]
    monkeypatch.setattr("indexer.console.time.monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_every_few_seconds_and_one_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("ingesting", None) as show:
        for done in range(13):
            clock[0] = float(done)
            show(done, 12, "3 skipped" if done > 7 else "")
    assert capsys.readouterr().err.splitlines() == [
        "ingesting: 5/12 photos, 1.0/s, 7 s left",
        "ingesting: 10/12 photos, 1.0/s, 2 s left, 3 skipped",
        "ingesting: 12/12 photos, 1.0/s, 0 s left, 3 skipped",
    ]


def test_what_an_earlier_run_did_does_not_count_as_speed(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("training", None, "steps") as show:
        for second, done in ((0, 1000), (4, 1002), (6, 1003)):
            clock[0] = second
            show(done, 2003)
    assert capsys.readouterr().err == "training: 1003/2003 steps, 0.5/s, 2000 s left\n"


def test_what_is_there_already_needs_no_rate(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress("drawings", 7, "sketches") as show:
        show(7)
    assert capsys.readouterr().err == "drawings: 7/7 sketches\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("ingesting", None) as show:
        show(3, 8)
        show(8, notes="2 skipped")
    assert "8/8" in terminal.getvalue()
    assert "2 skipped" in terminal.getvalue()


def test_a_table_in_a_pipe_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("a title of its own that is longer than its table", ["step", "ms"], [["raster [x]", 1.234]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a title of its own that is longer than its table"
    assert any(line.split() == ["raster", "[x]", "1.23"] for line in lines)
    print_table("wide", [f"column{number}" for number in range(30)], [["whole"] * 30])
    assert capsys.readouterr().out.splitlines()[-2].split() == ["whole"] * 30


def test_json_is_written_where_a_file_was_asked_for(tmp_path: Path) -> None:
    write_json(None, {"a": 1})
    write_json(tmp_path / "new" / "a.json", {"a": 1})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n  "a": 1\n}\n'
    with pytest.raises(DataError, match=r"cannot write .*a\.json/b\.json: .*a\.json is no folder"):
        write_json(tmp_path / "new" / "a.json" / "b.json", {"a": 1})


def test_json_has_null_for_what_it_cannot_spell(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"never": math.inf, "rows": [{"p99": math.nan, "p50": 1.5}], "on": (True, "x")})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {
        "never": None,
        "rows": [{"p99": None, "p50": 1.5}],
        "on": [True, "x"],
    }
