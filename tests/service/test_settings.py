"""Settings from a file, the environment and flags: which goes first, and what is refused."""

import tomllib
from pathlib import Path

import pytest

from indexer.errors import ConfigError
from service import cli
from service.config import Config, ServerConfig
from service.config_access import GalleryConfig, Secret
from service.settings import SECTIONS, all_keys, assignments, descriptions, load_settings

FILE = """
[server]
threads = 3
grace_s = 4

[galleries.staff]
purpose_required = true

[galleries."night shift"]
path = "elsewhere/night shift"
retention_days = 30
writable = true
roles = ["search"]
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mgrl.toml").write_text(FILE)
    return tmp_path / "mgrl.toml"


def load(file=None, environment=None, *flags):
    return load_settings(file, environment or {}, assignments(flags))


def test_flags_go_before_the_environment_and_the_environment_before_the_file(file):
    environment = {"MGRL_SERVER_THREADS": "5", "MGRL_SERVER_REFRESH_S": "2.5"}
    loaded = load(file, environment, "server.refresh_s=7")
    server = loaded.config.server
    assert (server.threads, server.grace_s, server.refresh_s, server.device) == (5, 4.0, 7.0, "auto")
    origins = {setting.key: setting.origin for setting in loaded.settings}
    assert [origins[f"server.{key}"] for key in ("threads", "grace_s", "refresh_s", "device")] == [
        "MGRL_SERVER_THREADS",
        "mgrl.toml",
        "--set",
        "default",
    ]


def test_every_gallery_has_settings_of_its_own(file):
    galleries = load(file, {"MGRL_GALLERIES_NIGHT_SHIFT_RETENTION_DAYS": "14"}).config.galleries
    assert galleries["staff"] == GalleryConfig(path=file.parent / "staff", purpose_required=True)
    assert galleries["night shift"] == GalleryConfig(
        path=file.parent / "elsewhere" / "night shift", retention_days=14, writable=True, roles=("search",)
    )


def test_a_variable_that_could_mean_two_galleries_is_refused(file):
    file.write_text("[galleries.night-shift]\n[galleries.'night shift']\n")
    with pytest.raises(
        ConfigError, match=r"could mean galleries\.night-shift\.roles, galleries\.night shift\.roles; set"
    ):
        load(file, {"MGRL_GALLERIES_NIGHT_SHIFT_ROLES": "search"})
    assert load(file, {}, "galleries.night-shift.roles=search").config.galleries["night-shift"].roles == ("search",)


def test_paths_of_a_file_start_from_its_folder_and_others_from_here(file, monkeypatch, tmp_path):
    monkeypatch.chdir(Path(__file__).parent)
    file.write_text("[auth]\nkeys = 'keys.json'\n[audit]\nfile = '/var/log/audit.jsonl'\n")
    config = load(file, {}, "tls.certificate=a.pem", "tls.key=b.pem").config
    assert config.auth.keys == tmp_path / "keys.json"
    assert config.audit.file == Path("/var/log/audit.jsonl")
    assert config.tls.certificate == Path(__file__).parent / "a.pem"


def test_the_default_tree_is_what_nothing_gives():
    assert load().config == Config()
    assert load().config.server == ServerConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nadress = 'x'", "mgrl.toml: there is no setting server.adress; did you mean server.address?"),
        ("[serve]\naddress = 'x'", r"mgrl.toml: there is no section \[serve\]; did you mean server?"),
        ("[galleries.a]\nretention = 3", "there is no setting galleries.a.retention; did you mean galleries.a.rete"),
        ("[zebra]\nx = 1", r"there is no section \[zebra\]; `mgrl config schema` lists all"),
        ("server = 3", r"mgrl.toml: server must be a section, \[server\]"),
        ("[galleries]\nstaff = '/srv/staff'", r"one section a gallery, \[galleries.NAME\]; got staff"),
        ("[server", "mgrl.toml is no TOML file: "),
        ("[server]\nthreads = 'two'", "mgrl.toml: server.threads must be a whole number, got 'two'"),
        ("[server]\nthreads = true", "server.threads must be a whole number, got True"),
        ("[server]\nthreads = 1.5", "server.threads must be a whole number, got 1.5"),
        ("[server]\napproximate = 'perhaps'", "server.approximate must be true or false, got 'perhaps'"),
        ("[server]\naddress = 5", "server.address must be text, got 5"),
        ("[server]\ngrace_s = nan", "grace_s must be at least 0, got nan"),
        ("[server]\nidle_timeout_s = inf", "idle_timeout_s must be from 1 to 4294967295, got inf"),
        ("[server]\nidle_timeout_s = 0.5", "idle_timeout_s must be from 1 to 4294967295, got 0.5"),
        ("[server]\ndevice = 'tpu'", "device must be one of auto, cpu, cuda, got 'tpu'"),
        ("[tls]\nclient_roles = [1]", "tls.client_roles must be a list of texts"),
        ("[tls]\ncertificate = 'a.pem'", r"\[tls\] certificate and key must be set together"),
        ("[tls]\nclient_ca = 'a.pem'", r"\[tls\] client_ca needs the service's own certificate"),
        ("[tls]\nclient_roles = ['root']", r"\[tls\] roles are search, ingest, admin, got 'root'"),
        ("[jwt]\nkey = 'a'\njwks = 'b'", r"\[jwt\] of key, secret and jwks only one may be set"),
        ("[jwt]\nkey = 'a'\nalgorithm = 'none'", "algorithm must be one of HS256, RS256, ES256, got 'none'"),
        ("[jwt]\nkey = 'a'\nalgorithm = 'RS256'", "audience and issuer must be set"),
        ("[jwt]\nleeway_s = 900", "leeway_s must be from 0 to 600, got 900"),
        ("[jwt]\nsecret = 'x'\nalgorithm = 'ES256'\naudience = 'a'\nissuer = 'b'", "a secret goes with HS256"),
        ("[limits]\nstrokes_per_s = -1", r"\[limits\] strokes_per_s must be at least 0, got -1"),
        ("[limits]\nmessage_bytes = 5000000", "message_bytes must be from 1 to 4194304, got 5000000"),
        ("[audit]\nsync_s = -1", "sync_s must be at least 0"),
        ("[audit]\nrotate_bytes = 10", "rotate_bytes must be at least 4096, got 10"),
        ("[galleries.a]\nretention_days = -1", r"\[galleries.a\] retention_days must be at least 0"),
        ("[galleries.a]\nretention_days = 3", r"\[galleries.a\] retention_days needs writable = true"),
        (
            "[galleries.a]\naudit_required = true",
            r"\[galleries.a\] requires an audit log, but \[audit\] file is not set",
        ),
        ("[created]\nretention_days = 3\nwritable = false", r"\[created\] retention_days needs writable = true"),
        ("[created]\naudit_required = true", r"\[created\] requires an audit log"),
        ("[created]\nfolder = 'x'\n[server]\nprocesses = 2", r"\[created\] needs processes = 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(file, text, message):
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(file)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"none.toml cannot be read"):
        load(tmp_path / "none.toml")


def test_unknown_variables_are_refused_but_not_those_of_others():
    with pytest.raises(ConfigError, match="variable MGRL_SERVER_ADRESS is no setting; did you mean MGRL_SERVER_ADDR"):
        load(None, {"MGRL_SERVER_ADRESS": "127.0.0.1:1"})
    # What Kubernetes sets in every container beside a service named mgrl.
    assert load(None, {"MGRL_SERVICE_HOST": "10.0.0.1", "MGRL_PORT": "x"}).ignored == ("MGRL_PORT", "MGRL_SERVICE_HOST")


def test_assignments_that_are_none_are_refused():
    with pytest.raises(ConfigError, match=r"--set takes SECTION.KEY=VALUE"):
        load(None, {}, "server.threads")
    with pytest.raises(ConfigError, match=r"--set: there is no setting server.thread; did you mean server.threads?"):
        load(None, {}, "server.thread=4")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "whoever reaches 0.0.0.0:1 could search these galleries without a key"),
        (["auth.keys=k"], "keys and faces would pass 0.0.0.0:1 unencrypted"),
        (["tls.certificate=c", "tls.key=k"], "without a key"),
        (["auth.keys=k", "tls.certificate=c", "tls.key=k"], None),
        (["tls.client_ca=r", "tls.certificate=c", "tls.key=k"], None),
        (["server.insecure=true"], None),
    ],
)
def test_listening_beyond_this_machine_needs_keys_and_encryption(settings, message):
    if message is None:
        assert not load(None, {}, "server.address=0.0.0.0:1", *settings).config.server.is_loopback
    else:
        with pytest.raises(ConfigError, match=message):
            load(None, {}, "server.address=0.0.0.0:1", *settings)
    load(None, {}, "server.address=[::1]:1", *settings)


def test_every_setting_is_described():
    for kind in (*SECTIONS.values(), GalleryConfig):
        assert set(descriptions(kind)) == set(kind.__dataclass_fields__), kind


def mgrl(capsys, *arguments):
    status = cli.main(["config", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_config_check_shows_origins_and_no_secrets(capsys, file, monkeypatch):
    monkeypatch.setenv("MGRL_JWT_SECRET", "a secret that nobody may read, ever")
    given = ("jwt.algorithm=HS256", "jwt.audience=mgrl", "jwt.issuer=desk")
    status, output, errors = mgrl(capsys, "check", file, *(part for each in given for part in ("--set", each)))
    assert (status, errors) == (0, "")
    rows = {row.split()[0]: row for row in output.splitlines()}
    assert rows["server.threads"].split() == ["server.threads", "3", "mgrl.toml"]
    assert rows["server.grace_s"].split() == ["server.grace_s", "4.0", "mgrl.toml"]
    assert rows["jwt.secret"].split() == ["jwt.secret", '"***"', "MGRL_JWT_SECRET"]
    assert "nobody may read" not in output
    assert output.splitlines()[-1].startswith("good: 12 of ")


def test_config_show_is_a_file_with_the_same_settings(capsys, file, tmp_path):
    status, output, _ = mgrl(capsys, "show", file)
    (tmp_path / "again.toml").write_text(output)
    assert status == 0
    assert load(tmp_path / "again.toml").config == load(file).config
    secret = (
        "--set",
        "jwt.secret=x",
        "--set",
        "jwt.algorithm=HS256",
        "--set",
        "jwt.audience=a",
        "--set",
        "jwt.issuer=b",
    )
    assert '\n# secret = "***"\n' in mgrl(capsys, "show", file, *secret)[1]


def test_config_schema_is_a_file_with_every_setting(capsys):
    status, output, _ = mgrl(capsys, "schema")
    assert status == 0
    tables = tomllib.loads(output)
    assert set(tables) == {*SECTIONS, "galleries"}
    named = {line.lstrip("# ").split(" =")[0] for line in output.splitlines() if " =" in line}
    assert named == {key.rpartition(".")[2] for key in all_keys(["NAME"])}


def test_config_check_says_what_is_wrong(capsys, file):
    file.write_text("[server]\nthreds = 2")
    status, output, errors = mgrl(capsys, "check", file)
    assert (status, output) == (1, "")
    assert errors == "mgrl config: mgrl.toml: there is no setting server.threds; did you mean server.threads?\n"


def test_secrets_do_not_print():
    secret = Secret("swordfish")
    assert "swordfish" not in f"{secret} {secret!r} {(secret,)}"
    assert secret == Secret("swordfish") != Secret("other")
    with pytest.raises(ConfigError) as refused:
        load_settings(None, {}, {"jwt.secret": (5, "--set")})
    assert str(refused.value) == "--set: jwt.secret must be text, got what was given"
