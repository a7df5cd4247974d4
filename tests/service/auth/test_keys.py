"""The file of API keys, and the command that writes it."""

import json
import multiprocessing
import re
from datetime import UTC, datetime, timedelta

import pytest

from indexer.errors import ConfigError
from service import cli
from service.auth.keys import changing_keys, find_key, load_keys
from service.config_access import LimitsConfig


@pytest.fixture
def mgrl(capsys, key_file):
    def run(*arguments):
        status = cli.main(["keys", *map(str, arguments), "--file", str(key_file)])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def found(key_file, token):
    return find_key({key.id: key for key in load_keys(key_file)}, token)


def test_a_key_opens_and_nothing_in_its_file_does(new_key, key_file):
    token = new_key("desk", ("search", "ingest"), ("staff",))
    assert re.fullmatch(r"mgrl_[0-9a-f]{12}_[\w-]{43}", token)
    key = found(key_file, token)
    assert (key.name, key.roles, key.galleries) == ("desk", ("search", "ingest"), ("staff",))
    assert token.split("_", 2)[2] not in key_file.read_text()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert found(key_file, token[:-1] + ("A" if token[-1] != "A" else "B")) is None
    assert found(key_file, key.sha256) is None
    assert found(key_file, "") is None


def test_no_two_keys_are_alike(new_key):
    assert len({new_key(f"desk{number}").split("_", 2)[2] for number in range(50)}) == 50


def test_a_revoked_key_keeps_its_name_in_the_file(mgrl, key_file):
    token = mgrl("add", "desk", "--role", "search")[1].strip()
    assert mgrl("revoke", "desk")[:2] == (0, "revoked desk\n")
    assert found(key_file, token).revoked is not None
    assert mgrl("revoke", "desk") == (
        1,
        "",
        "mgrl keys: there is no key named desk that could be revoked; `mgrl keys list` shows all\n",
    )
    again = mgrl("add", "desk", "--role", "search")[1].strip()
    assert found(key_file, again).revoked is None


def test_the_list_shows_states_and_nothing_that_opens(mgrl, key_file):
    token = mgrl("add", "desk", "--role", "search", "--gallery", "staff", "--expires", "90d")[1].strip()
    mgrl("add", "feeder", "--role", "ingest", "--role", "admin", "--expires", "never")
    mgrl("revoke", "feeder")
    status, output, _ = mgrl("list")
    rows = {row.split()[0]: row for row in output.splitlines() if row.strip()}
    assert status == 0
    day = (datetime.now(UTC) + timedelta(days=90)).date().isoformat()
    assert re.match(rf"\s*desk +good +search +staff +\S+ +{day}", rows["desk"])
    assert re.match(r"\s*feeder +revoked +ingest, admin +all +\S+ +never", rows["feeder"])
    assert token[18:] not in output
    assert load_keys(key_file)[0].sha256 not in output


def test_limits_of_a_key_are_kept(mgrl, key_file):
    mgrl("add", "desk", "--role", "search", "--calls-per-s", "5", "--message-bytes", "1000")
    (key,) = load_keys(key_file)
    assert key.limits == {"calls_per_s": 5.0, "message_bytes": 1000}
    assert LimitsConfig(**key.limits).message_bytes == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "a b", "--role", "search"], "a key's name must be 1 to 64 letters, digits and _.@-, got 'a b'"),
        (["add", "a", "--role", "search", "--expires", "soon"], "--expires takes 12h, 90d, 4w, a date such as"),
        (["add", "a", "--role", "search", "--expires", "2020-01-01"], "--expires must lie ahead, got 2020-01-01"),
        (["add", "a", "--role", "search", "--calls-per-s", "-1"], "calls_per_s must be at least 0, got -1"),
        (["add", "a", "--role", "search", "--message-bytes", "9999999"], "message_bytes must be from 1 to 4194304"),
        (["list"], "the key file keys.json cannot be read (No such file or directory); make it with: mgrl keys add"),
    ],
)
def test_what_makes_no_key_is_refused(mgrl, arguments, message, key_file):
    status, output, errors = mgrl(*arguments)
    assert (status, output) == (1, "")
    assert errors.startswith(f"mgrl keys: {message}")
    assert not key_file.exists()


def test_a_name_is_taken_until_its_key_is_revoked(mgrl):
    assert mgrl("add", "desk", "--role", "search")[0] == 0
    assert mgrl("add", "desk", "--role", "search")[2].startswith("mgrl keys: there is a key named desk; revoke it")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"version": 2, "keys": []}', '{"version": 1, "keys": [{"name": "a"}]}', '{"version": 1}'],
)
def test_files_that_are_no_key_files_are_refused(key_file, content):
    key_file.write_text(content)
    key_file.chmod(0o600)
    with pytest.raises(ConfigError, match=r"the key file keys\.json (is none that|has version 2)"):
        load_keys(key_file)


def test_a_file_with_a_role_of_another_version_is_refused(new_key, key_file):
    new_key()
    raw = json.loads(key_file.read_text())
    raw["keys"][0]["roles"] = ["root"]
    key_file.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="roles are search, ingest, admin, got 'root'"):
        load_keys(key_file)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"calls_a_second": 5}, r"the key file keys\.json is none that"),
        (None, r"the key file keys\.json is none that"),
        ({"calls_per_s": "5"}, r"the key file keys\.json is none that"),
        ({"calls_per_s": -1}, "calls_per_s must be at least 0, got -1"),
    ],
)
def test_a_file_whose_limits_are_none_is_refused_and_does_not_fail_every_call(new_key, key_file, limits, message):
    new_key()
    raw = json.loads(key_file.read_text())
    raw["keys"][0]["limits"] = limits
    key_file.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=message):
        load_keys(key_file)


def test_a_file_that_others_may_change_is_refused(new_key, key_file):
    new_key()
    key_file.chmod(0o620)
    with pytest.raises(ConfigError, match=r"may be changed by others \(mode 0620\); chmod 600"):
        load_keys(key_file)


def _add_ten(path, first):
    from service.auth.keys import add_key

    for number in range(first, first + 10):
        with changing_keys(path) as keys:
            add_key(keys, f"desk{number}", ("search",), None, None, {})


def test_two_who_add_keys_at_once_lose_none(key_file):
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_add_ten, args=(key_file, first)) for first in (0, 10)]
    for other in others:
        other.start()
    for other in others:
        other.join(30)
    assert {key.name for key in load_keys(key_file)} == {f"desk{number}" for number in range(20)}
