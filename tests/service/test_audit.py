"""The audit log's file: a chain that shows every change, and that survives crashes and full disks."""

import asyncio
import errno
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.errors import ConfigError, DataError
from service import cli
from service.audit import AuditFile, AuditLog
from service.audit_chain import START, Head, files_of, line_of, read_records, read_tail, verify
from service.config_access import AuditConfig
from service.errors import AuditError


def records(count, first=0):
    return [{"event": "Search", "caller": f"c{n}"} for n in range(first, first + count)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path):
    file = AuditFile(path, 1 << 20)
    file.append(records(5), sync=True)
    return file


def callers(path):
    return [record.get("caller", record["event"]) for record in read_records(path)]


def test_a_record_is_what_its_hash_says(path, log):
    lines = path.read_text().splitlines()
    first = json.loads(lines[0])
    assert (first["n"], first["previous"], first["caller"]) == (1, "0" * 64, "c0")
    assert json.loads(lines[1])["previous"] == first["hash"]
    found = verify(path)
    assert (found.records, found.first, found.problems, found.remarks) == (5, 1, (), ())
    assert found.head == Head(5, json.loads(lines[4])["hash"])
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_change_is_found(path, log):
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    changed = {
        "a byte": whole.replace(b'"caller":"c2"', b'"caller":"c9"'),
        "a line taken out": b"".join(lines[:2] + lines[3:]),
        "lines swapped": b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
        "a line twice": b"".join([*lines[:3], lines[2], *lines[3:]]),
        "a line of nobody": b"".join([*lines[:2], b"{}\n", *lines[2:]]),
        "spaces": whole.replace(b'"caller":"c2"', b'"caller": "c2"'),
        "a key twice": whole.replace(b'"caller":"c2"', b'"caller":"c9","caller":"c2"'),
        "no JSON": b"".join([*lines[:2], b"?" * 80 + b"\n", *lines[3:]]),
    }
    for what, content in changed.items():
        assert content != whole
        path.write_bytes(content)
        assert verify(path).problems, what
    # One hash that is right in itself, of a record that was changed: the next one still names the old.
    record = {name: value for name, value in json.loads(lines[2]).items() if name not in ("n", "previous", "hash")}
    forged, _ = line_of({**record, "caller": "nobody"}, Head(2, json.loads(lines[1])["hash"]))
    path.write_bytes(b"".join([*lines[:2], forged, *lines[3:]]))
    (problem,) = verify(path).problems
    assert problem == "audit.jsonl line 4: record 3 before it is not the one that it was written after"


@pytest.mark.parametrize(
    "forged",
    [
        b"[" * 100_000,
        line_of({"event": "x", "at": 5}, Head(5, "0" * 64))[0].strip(),
        b"",
        # Its number is a text.
        b'{"at":"","event":"x","hash":"489f522212d063d37a863a22a4e381a9cf41c87875189236dffb0daed13e8113","n":"6","previous":""}',
    ],
)
def test_a_line_that_somebody_made_up_is_a_problem_and_stops_nobody(path, log, forged):
    if not forged:
        torn = hashlib.sha256(path.read_bytes().splitlines()[-1]).hexdigest()
        forged = line_of({"event": "recovered", "at": "", "torn_sha256": torn}, Head(5, "0" * 64))[0].strip()
    with path.open("ab") as file:
        file.write(forged + b"\n")
    assert verify(path).problems
    AuditFile(path, 1 << 20).append(records(1, 9), sync=False)
    assert callers(path)[-1] == "c9"


def test_an_end_that_was_cut_off_is_found_by_what_was_noted(path, log):
    noted = verify(path).head
    log.append(records(2, 5), sync=True)
    assert verify(path, noted).problems == ()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    assert verify(path).problems == ()
    assert verify(path, noted).problems == ("record 5 is not the one that was there before",)


def test_another_process_goes_on_where_the_file_ends(path, log):
    AuditFile(path, 1 << 20).append(records(2, 5), sync=True)
    log.append(records(1, 7), sync=True)
    assert callers(path) == [f"c{n}" for n in range(8)]
    assert verify(path).problems == ()


def _append_many(path, first):
    file = AuditFile(path, 4096)
    for n in range(20):
        file.append(records(1, first + n), sync=False)


def test_processes_that_write_at_once_keep_one_chain(path):
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_append_many, args=(path, first)) for first in (0, 20)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    found = verify(path)
    assert (found.records, found.problems, found.remarks) == (40, (), ())
    assert sorted(callers(path)) == sorted(f"c{n}" for n in range(40))
    assert len(files_of(path)) > 2


@pytest.mark.parametrize("name", ["audit.jsonl", "audit[desk].jsonl"])
def test_a_full_file_is_followed_by_another_with_the_same_chain(path, name):
    path = path.with_name(name)
    file = AuditFile(path, 4096)
    for n in range(100):
        file.append(records(1, n), sync=False)
    # Put aside under the number of its last record.
    first, second, *_ = files_of(path)
    assert [first.name, second.name] == [f"{name}.{read_tail(each).record['n']:06}" for each in (first, second)]
    assert all(each.stat().st_size < 5000 for each in files_of(path))
    assert (verify(path).records, verify(path).problems) == (100, ())
    AuditFile(path, 4096).append(records(1, 100), sync=False)
    assert verify(path).head.number == 101
    # Old files may go to an archive; that is said, and is no problem.
    files_of(path)[0].unlink()
    found = verify(path)
    assert found.problems == ()
    assert "those before it are not here" in found.remarks[0]
    files_of(path)[1].unlink()
    assert "records are missing" in verify(path).problems[0]


def test_files_that_are_moved_away_take_neither_the_chain_nor_a_name_with_them(path, tmp_path, monkeypatch):
    (tmp_path / "archive").mkdir()
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(os.fstat(handle).st_ino), fsync(handle)))
    archived = []
    for n in range(100):
        AuditFile(path, 4096).append(records(1, n), sync=False)
        *older, _ = files_of(path)
        for each in older:
            assert each.stat().st_ino in synced  # no later sync reaches it
            archived.append(each.rename(tmp_path / "archive" / each.name))
    assert len(set(archived)) == len(archived) > 2
    assert verify(path).head.number == 100
    # With those of the archive back, nothing is missing.
    for each in archived:
        each.rename(tmp_path / each.name)
    assert (verify(path).records, verify(path).problems, verify(path).remarks) == (100, (), ())


def test_files_that_earlier_versions_counted_come_first(path):
    file = AuditFile(path, 4096)
    for n in range(60):
        file.append(records(1, n), sync=False)
    for count, each in enumerate(files_of(path)[:-1], start=1):
        each.rename(path.with_name(f"audit.jsonl.{count:06}"))
    for n in range(60, 100):
        AuditFile(path, 4096).append(records(1, n), sync=False)
    assert (verify(path).records, verify(path).problems) == (100, ())


CRASH = """
import os, signal, sys
from pathlib import Path
from service.audit import AuditFile
from tests.service.test_audit import records
path, cut = Path(sys.argv[1]), int(sys.argv[2])
AuditFile(path, 1 << 20).append(records(3), sync=True)
write = os.write
def die(handle, data):
    write(handle, bytes(data)[:cut])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = die
AuditFile(path, 1 << 20).append(records(2, 3), sync=True)
"""


@pytest.mark.parametrize("cut", [0, 1, 40, -1, 300])
def test_a_crash_in_mid_line_is_noted_and_the_chain_goes_on(path, cut):
    done = subprocess.run([sys.executable, "-c", CRASH, path, str(cut)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    torn = read_tail(path).torn
    assert bool(torn) == (cut != 0)
    file = AuditFile(path, 1 << 20)
    file.append(records(1, 9), sync=True)
    found = verify(path)
    assert found.problems == ()
    kept = ["c0", "c1", "c2", *(["c3"] if cut in (-1, 300) else [])]
    # All but the end of its line: it can be read, but nobody was told that it is there.
    kept += ["c4"] if cut == -1 else []
    if not torn:
        assert callers(path) == [*kept, "c9"]
    else:
        assert callers(path) == [*kept, "recovered", "c9"]
        assert f"{len(torn)} bytes before it are what a crash left, as it says" in found.remarks[0]
        # What the crash left is still there: nothing is ever cut off.
        assert torn in path.read_bytes()


def test_a_crash_just_before_the_end_of_a_line_is_noted_too(path, log):
    path.write_bytes(path.read_bytes()[:-1])
    AuditFile(path, 1 << 20).append(records(1, 9), sync=True)
    found = verify(path)
    assert found.problems == ()
    assert (found.head.number, len(found.remarks)) == (6, 1)


def test_a_crash_in_the_note_of_a_crash_is_noted(path, log):
    with path.open("ab") as file:
        file.write(b'{"event":"Sea\n{"at":"20')
    AuditFile(path, 1 << 20).append(records(1, 9), sync=True)
    assert (verify(path).problems, len(verify(path).remarks)) == ((), 1)


def test_a_note_of_a_crash_excuses_no_other_line(path, log):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines)[:-20])
    AuditFile(path, 1 << 20).append(records(1, 9), sync=True)
    broken = path.read_bytes().replace(b'"caller":"c4"', b'"caller":"c7"')
    path.write_bytes(broken)
    assert verify(path).problems


@pytest.fixture
def full_disk(monkeypatch, path):
    """Lets half of what is written to the log through, and then none."""
    write, state = os.write, {"is_full": False}

    def limited(handle, data):
        if state["is_full"] and os.readlink(f"/proc/self/fd/{handle}") == str(path):
            write(handle, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", limited)
    return state


def test_a_full_disk_keeps_what_was_there(path, log, full_disk):
    before = path.read_bytes()
    full_disk["is_full"] = True
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            log.append(records(1, 5), sync=True)
        assert path.read_bytes() == before
    full_disk["is_full"] = False
    log.append(records(1, 6), sync=True)
    assert callers(path) == ["c0", "c1", "c2", "c3", "c4", "c6"]
    assert (verify(path).problems, verify(path).remarks) == ((), ())


def test_where_nothing_can_be_taken_back_the_rest_is_noted(path, log, full_disk, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "append only")

    full_disk["is_full"] = True
    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="No space left"):
            log.append(records(1, 5), sync=True)
    full_disk["is_full"] = False
    log.append(records(1, 6), sync=True)
    assert callers(path) == ["c0", "c1", "c2", "c3", "c4", "recovered", "c6"]
    assert verify(path).problems == ()


def test_records_that_wait_share_a_write(path, monkeypatch):
    batches = []
    append = AuditFile.append

    def counted(self, records, *, sync):
        batches.append(len(records))
        append(self, records, sync=sync)

    async def many():
        log = AuditLog.open(AuditConfig(path))
        monkeypatch.setattr(AuditFile, "append", counted)
        await asyncio.gather(*(log.write({"event": "Search", "caller": f"c{n}"}) for n in range(50)))
        await log.close()

    asyncio.run(many())
    assert callers(path) == ["opened", *(f"c{n}" for n in range(50)), "closed"]
    assert verify(path).problems == ()
    assert len(batches) < 10


def test_a_record_is_on_the_disk_when_its_write_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))

    async def written(sync_s):
        log = AuditLog.open(AuditConfig(path, sync_s=sync_s))
        synced.clear()
        await log.write({"event": "Search"})
        at_once = list(synced)
        await asyncio.sleep(0.3)
        later = list(synced)
        await log.close()
        return at_once, later

    at_once, _ = asyncio.run(written(0))
    assert len(at_once) == 1
    at_once, later = asyncio.run(written(0.1))
    assert (at_once, len(later)) == ([], 1)


def test_a_write_that_fails_raises_and_the_next_may_succeed(path, full_disk, caplog):
    async def written():
        log = AuditLog.open(AuditConfig(path))
        full_disk["is_full"] = True
        for _ in range(3):
            with pytest.raises(AuditError, match="the audit log cannot be written, so nothing is shown"):
                await log.write({"event": "Search"})
        assert log.is_failing
        full_disk["is_full"] = False
        await log.write({"event": "Search", "caller": "later"})
        assert not log.is_failing
        await log.close()

    asyncio.run(written())
    assert callers(path) == ["opened", "later", "closed"]
    assert caplog.text.count("the audit log cannot be written: [Errno 28] No space left on device") == 1


def test_a_log_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    with pytest.raises(ConfigError, match=r"the audit log audit\.jsonl cannot be written \(No such file"):
        AuditLog.open(AuditConfig(tmp_path / "nowhere" / "audit.jsonl"))


def test_a_clock_that_was_put_back_is_remarked(path, log):
    log.append([{"event": "Search", "at": "2001-01-01T00:00:00.000000Z"}], sync=False)
    (remark,) = verify(path).remarks
    assert "audit.jsonl line 6: the clock was put back, from 20" in remark
    assert verify(path).problems == ()


def test_the_chain_begins_at_nothing(path):
    line, head = line_of({"event": "x", "at": ""}, START)
    assert head.number == 1
    path.write_bytes(line)
    assert read_tail(path).record["n"] == 1
    path.write_bytes(b"")
    assert read_tail(path) == (None, b"")


def test_the_end_of_a_long_file_is_found_without_reading_it(path, monkeypatch):
    monkeypatch.setattr("service.audit_chain._BLOCK", 64)
    file = AuditFile(path, 1 << 20)
    file.append([*records(50), {"event": "Search", "at": "", "messages": ["x" * 5000]}], sync=False)
    assert read_tail(path).record["n"] == 51
    with path.open("ab") as torn:
        torn.write(b"y" * 700)
    assert read_tail(path).record["n"] == 51
    assert read_tail(path).torn == b"y" * 700


def mgrl(capsys, *arguments):
    status = cli.main(["audit", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_the_command_verifies(path, log, capsys, tmp_path):
    head = verify(path).head
    status, output, errors = mgrl(capsys, "verify", path)
    assert (status, output, errors) == (0, f"good: 5 records, the last is 5:{head.hash}\n", "")
    assert mgrl(capsys, "verify", path, "--expect", f"5:{head.hash}")[0] == 0
    status, _, errors = mgrl(capsys, "verify", path, "--expect", f"4:{head.hash}", "--json", tmp_path / "found.json")
    assert (status, errors) == (1, "record 4 is not the one that was there before\n")
    assert json.loads((tmp_path / "found.json").read_text())["problems"] == [errors.strip()]
    path.write_bytes(path.read_bytes().replace(b'"c2"', b'"c7"'))
    status, output, errors = mgrl(capsys, "verify", path)
    assert (status, output) == (1, "2 problems in 4 records\n")
    assert errors.splitlines()[0] == "audit.jsonl line 3: its hash is another"
    assert mgrl(capsys, "verify", path, "--expect", "x")[2].startswith("mgrl audit: --expect takes N:HASH")
    assert mgrl(capsys, "verify", tmp_path / "none")[2] == "mgrl audit: there is no audit log none\n"


def test_the_command_shows_what_is_asked_for(path, capsys):
    file = AuditFile(path, 1 << 20)
    for n, (caller, gallery) in enumerate([("desk", "staff"), ("till", "staff"), ("desk", "guests")]):
        record = {"event": "Draw", "state": "ended", "caller": caller, "gallery": gallery, "results": 10 * n}
        file.append([{**record, "purpose": f"case \x1b[2J {n}", "at": f"2026-0{n + 1}-01T00:00:00Z"}], sync=False)
    status, output, _ = mgrl(capsys, "show", path)
    assert status == 0
    assert output.splitlines()[0] == "3 of 3 records"
    assert "Draw ended" in output
    assert "\x1b" not in output
    for options, expected in (
        (["--gallery", "staff"], "2 of 2 records"),
        (["--caller", "desk", "--gallery", "guests"], "1 of 1 records"),
        (["--since", "2026-02"], "2 of 2 records"),
        (["--since", "2026-02-01T00:00:00"], "2 of 2 records"),
        (["--since", "2026-02-01T00:00:01"], "1 of 1 records"),
        (["--since", "2026-02-02T00:00:00.000000Z"], "1 of 1 records"),
    ):
        assert mgrl(capsys, "show", path, *options)[1].splitlines()[0] == expected
    for since in ("31.01.2026", "2026-2-1", "yesterday", "2026-02-01 12:00", "2026-02-01Z"):
        status, output, errors = mgrl(capsys, "show", path, "--since", since)
        assert (status, output) == (1, "")
        assert errors.startswith("mgrl audit: --since takes a moment in UTC")
    with pytest.raises(DataError):
        list(read_records(path.with_name("none")))


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\x00", b'{"a": 1}\n', b"no log"])
def test_a_file_that_is_no_log_is_not_shown_as_one_without_records(path, capsys, content):
    path.write_bytes(content)
    status, output, errors = mgrl(capsys, "show", path)
    assert (status, output) == (1, "")
    assert errors == "mgrl audit: audit.jsonl is no audit log: none of its lines is a record\n"
