import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from session_service import config_values
from session_service.config import Settings, _documentation, parse

PASSWORD = "hunter2"  # noqa: S105 - not a secret: the tests look for it in texts
URL = f"postgresql://owner:{PASSWORD}@db.example:5432/sessions?sslpassword={PASSWORD}"


def refusal(capsys: pytest.CaptureFixture[str], argv: list[str], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse(argv, environ or {})
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_defaults_listen_on_loopback_and_embed_the_database() -> None:
    command, settings = parse(["serve"], {"HOME": "/home/someone"})
    assert (command, settings.listen, settings.ops_listen) == ("serve", "127.0.0.1:7450", "127.0.0.1:7451")
    assert settings.embedded
    assert settings.max_request_bytes == 4 * 1024 * 1024


def test_data_dir_follows_the_xdg_state_directory() -> None:
    assert parse(["serve"], {"XDG_STATE_HOME": "/s"})[1].data_dir == Path("/s/agent-session-service")


def test_flag_wins_over_environment_and_environment_over_default() -> None:
    environ = {"SESSION_SERVICE_POOL_SIZE": "7", "SESSION_SERVICE_DRAIN_TIMEOUT": "1.5"}
    settings = parse(["serve", "--pool-size", "9"], environ)[1]
    assert (settings.pool_size, settings.drain_timeout) == (9, 1.5)


def test_an_empty_variable_counts_as_unset() -> None:
    assert parse(["serve"], {"SESSION_SERVICE_LISTEN": ""})[1].listen == "127.0.0.1:7450"


def test_settings_are_frozen_and_every_field_is_documented() -> None:
    settings = Settings()
    with pytest.raises(FrozenInstanceError):
        settings.listen = "x"  # type: ignore[misc]  # that is what is tested
    assert set(_documentation()) == {setting.name for setting in fields(Settings)}


@pytest.mark.parametrize(
    "listen",
    ["127.0.0.1:0", "127.8.9.10:1", "[::1]:7450", "localhost:7450", "unix:/tmp/s", "[::ffff:127.0.0.1]:1"],
)
def test_loopback_needs_no_permission(listen: str) -> None:
    assert parse(["serve", "--listen", listen], {})[1].listen == listen


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:7450", "[::]:7450", "192.0.2.1:7450", "no-such-host.invalid:1", "[::ffff:10.0.0.1]:1"]
)
def test_listening_beyond_loopback_needs_permission(listen: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, ["serve", "--listen", listen])
    assert "--listen" in told
    assert listen in told
    assert "--allow-unauthenticated" in told
    assert parse(["serve", "--listen", listen, "--allow-unauthenticated"], {})[1].listen == listen
    allowed = {"SESSION_SERVICE_LISTEN": listen, "SESSION_SERVICE_ALLOW_UNAUTHENTICATED": "yes"}
    assert parse(["serve"], allowed)[1].listen == listen
    refusal(capsys, ["serve", "--allow-unauthenticated", "false"], allowed)


def test_metrics_may_be_reachable_from_elsewhere() -> None:
    assert parse(["serve", "--ops-listen", "0.0.0.0:9000"], {})[1].ops_listen == "0.0.0.0:9000"


@pytest.mark.parametrize(
    ("flag", "value", "rule"),
    [
        ("--listen", "7450", "HOST:PORT"),
        ("--listen", ":7450", "HOST:PORT"),
        ("--listen", "::1:7450", "HOST:PORT"),
        ("--listen", "localhost:65536", "0 to 65535"),
        ("--listen", "unix:", "path"),
        ("--ops-listen", "unix:/tmp/x", "HOST:PORT"),
        ("--pool-size", "0", "1 to 1000"),
        ("--pool-size", "ten", "1 to 1000"),
        ("--statement-timeout", "nan", "0.1 to 3600"),
        ("--drain-timeout", "-1", "0 to 3600"),
        ("--event-retention", "86399", "86400 to"),
        ("--max-request-bytes", "1e9", "1024 to"),
        ("--log-level", "loud", "debug or info"),
        ("--log-format", "xml", "json or console"),
        ("--database-role", 'x"; DROP', "a-z"),
        ("--database-url", "mysql://h/d", "postgresql://"),
        ("--allow-unauthenticated", "perhaps", "true or false"),
    ],
)
def test_a_refusal_names_flag_value_and_rule(
    flag: str, value: str, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refusal(capsys, ["serve", f"{flag}={value}"])
    assert flag in told
    assert rule in told
    assert flag == "--database-url" or value in told
    variable = "SESSION_SERVICE_" + flag[2:].replace("-", "_").upper()
    assert variable in refusal(capsys, ["serve"], {variable: value})


def test_database_url_and_data_dir_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    told = refusal(capsys, ["serve", "--data-dir", "/d"], {"SESSION_SERVICE_DATABASE_URL": URL})
    assert "--data-dir" in told
    assert "SESSION_SERVICE_DATABASE_URL" in told
    assert PASSWORD not in told


def test_migrate_needs_a_database_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--database-url" in refusal(capsys, ["migrate"])
    assert parse(["migrate", "--database-url", URL], {})[1].database_url == URL


def test_verify_needs_a_database_url(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--database-url" in refusal(capsys, ["verify"])
    assert parse(["verify", "--database-url", URL], {})[1].database_url == URL


def test_a_password_is_neither_in_repr_nor_in_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    assert PASSWORD not in repr(parse(["serve", "--database-url", URL], {})[1])
    for wrong in (
        URL.replace("postgresql", "mysql"),
        f"host=h password={PASSWORD}",
        f"postgresql://[{PASSWORD}",
    ):
        told = refusal(capsys, ["serve", "--database-url", wrong])
        assert "--database-url" in told
        assert PASSWORD not in told


def test_flags_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--pool" in refusal(capsys, ["serve", "--pool", "3"])


def test_help_shows_every_flag_and_variable() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "session_service", "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for setting in fields(Settings):
        assert "--" + setting.name.replace("_", "-") in shown
        assert "SESSION_SERVICE_" + setting.name.upper() in shown


@pytest.mark.parametrize("password", ["hunter2/x", "hun#ter2", "hun?ter2", "hun/t?e#r2"])
def test_a_password_with_unescaped_characters_is_refused_and_never_shown(password: str) -> None:
    url = f"postgresql://owner:{password}@host:5432/db"
    assert config_values.without_password(url) == "***"
    with pytest.raises(ValueError, match="%2F") as refused:
        config_values.database_url(url)
    assert "hun" not in str(refused.value)


@pytest.mark.parametrize("host", ["host:x", "host:1:2", "host:123456", "[::1", "a:5432,b:y"])
def test_a_database_url_with_an_impossible_port_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"HOST|Invalid"):
        config_values.database_url(f"postgresql://owner:secret@{host}/db")


@pytest.mark.parametrize("host", ["", "host", "host:5432", "[::1]:5432", "a:5432,b:5433"])
def test_usual_database_urls_are_taken(host: str) -> None:
    url = f"postgresql://owner:se%2Fcret@{host}/db?host=/run/x"
    assert config_values.database_url(url) == url


def test_a_closed_stderr_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    _, settings = parse(["serve"], {})
    assert settings.log_format == "json"
