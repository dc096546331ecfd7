# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings: argument before environment before file before default, and nothing of the caller's goes on to children."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from glixd import settings
from glixd.errors import InvalidRequest
from glixd.protocol import repository_key
from glixd.settings import Mode, Settings, child_environment

LAYERS: list[tuple[str, object, object, object]] = [
    ("repository", "/from/file", "/from/environment", "/from/argument"),
    ("state", "/from/file", "/from/environment", "/from/argument"),
    ("socket", "/from/file", "/from/environment", "/from/argument"),
    ("bus", "system", "session", "unix:path=/bus"),
    ("host", "file", "environment", "argument"),
    ("branch", "file", "environment", "argument"),
    ("idle_exit", 1.0, "2", 3.0),
    ("pending", 11, "12", 13),
    ("pending_per_uid", 1, "2", 3),
    ("connections", 11, "12", 13),
    ("connections_per_uid", 1, "2", 3),
    ("calls_per_second", 1.5, "2", 3.0),
    ("calls_at_once", 1, "2", 3),
    ("checks_per_uid", 1, "2", 3),
    ("registry_age", 1.0, "2", 3.0),
    ("file_registries", True, "false", True),
    ("index", False, "true", False),
    ("index_delay", 1.0, "2", 3.0),
    ("tidy_delay", 1.0, "2", 3.0),
    ("log", "debug", "warning", "error"),
    ("evaluate", False, "true", False),
    ("auto_update", "stage", "switch", "off"),
    ("auto_update_age", 1, "2", 3),
    ("activator", "/a.sock", "/b.sock", "/c.sock"),
    ("activations", "/a", "/b", "/c"),
    ("bell", "/a", "/b", "/c"),
    ("evaluator", "child", "/b", "/c"),
    ("system_profile", "/a", "/b", "/c"),
    ("system_root", "/a", "/b", "/c"),
    ("rollback_on_failure", True, "false", True),
]
"""A setting with its value in the file, in the environment and as an argument."""


def load(folder: Path, text: str = "", /, environment: dict[str, str] | None = None, **arguments: Any) -> Settings:
    """The settings of a user whose home is `folder` and whose configuration file says `text`."""
    if text:
        place = folder / ".config" / "glixd"
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.toml").write_text(text)
    return settings.load(arguments, {"HOME": str(folder), "GLIXD_HOST": "laptop", **(environment or {})})


def refusal(
    folder: Path, text: str = "", /, environment: dict[str, str] | None = None, **arguments: Any
) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        load(folder, text, environment=environment, **arguments)
    return caught.value


def toml(name: str, value: object) -> str:
    shown = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return f"{name} = {shown}\n"


def shown(chosen: Settings, name: str) -> object:
    value = getattr(chosen, name)
    return str(value) if isinstance(value, Path) else value


# -- precedence --------------------------------------------------------------------------------------------------


def test_every_setting_has_a_row() -> None:
    in_files_only = {"registries", "auto_update_inputs"}  # tables
    assert {name for name, *_ in LAYERS} == set(Settings.model_fields) - {"mode"} - in_files_only


@pytest.mark.parametrize(("name", "in_file", "in_environment", "as_argument"), LAYERS, ids=[row[0] for row in LAYERS])
def test_an_argument_goes_before_the_environment_before_the_file_before_the_default(
    tmp_path: Path, name: str, in_file: object, in_environment: object, as_argument: object
) -> None:
    variable = {f"GLIXD_{name.upper()}": str(in_environment)}
    without = {"GLIXD_HOST": ""} if name == "host" else {}
    if not without:
        default = shown(load(tmp_path), name)
        assert default != in_file
        assert shown(load(tmp_path, toml(name, in_file)), name) == in_file
    expected = {"2": 2, "12": 12, "true": True, "false": False}.get(str(in_environment), in_environment)
    assert shown(load(tmp_path, toml(name, in_file), environment=variable), name) == expected
    chosen = load(tmp_path, toml(name, in_file), environment=variable, **{name: as_argument})
    assert shown(chosen, name) == as_argument


def test_the_host_is_in_the_file_before_it_is_the_machines(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path)}
    (tmp_path / ".config" / "glixd").mkdir(parents=True)
    (tmp_path / ".config" / "glixd" / "config.toml").write_text('host = "file"\n')
    assert settings.load({}, environment).host == "file"
    own = socket.gethostname().partition(".")[0].lower()
    (tmp_path / ".config" / "glixd" / "config.toml").unlink()
    if settings.HOST_NAME.fullmatch(own):
        assert settings.load({}, environment).host == own


def test_an_argument_that_was_not_given_is_none_and_hides_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, 'log = "debug"\n', log=None, host=None).log == "debug"


@pytest.mark.parametrize(
    ("environment", "argument", "expected"),
    [
        ({}, None, Mode.USER),
        ({"GLIX_MODE": "system"}, None, Mode.SYSTEM),
        ({"GLIXD_MODE": "system"}, None, Mode.SYSTEM),
        ({"GLIXD_MODE": "user", "GLIX_MODE": "system"}, None, Mode.USER),
        ({"GLIX_MODE": "system"}, "user", Mode.USER),
        ({"GLIXD_MODE": "user"}, "system", Mode.SYSTEM),
    ],
)
def test_the_mode_is_an_argument_before_a_variable(
    tmp_path: Path, environment: dict[str, str], argument: str | None, expected: Mode
) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    assert load(tmp_path, environment=environment, mode=argument, config=str(empty)).mode is expected


@pytest.mark.parametrize("variable", ["GLIX_MODE", "GLIXD_MODE"])
def test_a_mode_that_is_none_is_refused_in_a_sentence(tmp_path: Path, variable: str) -> None:
    assert "mode" in refusal(tmp_path, environment={variable: "root\x1b"}).message


def test_a_file_is_of_one_mode_and_does_not_choose_it(tmp_path: Path) -> None:
    assert load(tmp_path, 'mode = "user"\n').mode is Mode.USER
    error = refusal(tmp_path, 'mode = "system"\n')
    assert error.details["argument"] == "mode"


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("nonsense = 1", "nonsense"),
        ("Host = 'laptop'", "Host"),
        ("[host]\nname = 'x'", "host"),
        ("authorise = false", "authorise"),
        ("repository = 5", "repository"),
        ("repository = ['/x']", "repository"),
        ("socket = 5", "socket"),
        ("pending = 0", "pending"),
        ("pending = 'many'", "pending"),
        ("pending_per_uid = -1", "pending_per_uid"),
        ("idle_exit = -1", "idle_exit"),
        ("idle_exit = nan", "idle_exit"),
        ("log = 'loud'", "log"),
        ("host = '../..'", "host"),
        ("branch = '--force'", "branch"),
        ('branch = "main\\n"', "branch"),
        ("branch = ''", "branch"),
        ("evaluate = 'perhaps'", "evaluate"),
    ],
)
def test_a_file_with_a_wrong_or_unknown_key_is_refused_and_the_key_named(tmp_path: Path, text: str, key: str) -> None:
    environment = {"HOME": str(tmp_path)}
    (tmp_path / ".config" / "glixd").mkdir(parents=True)
    (tmp_path / ".config" / "glixd" / "config.toml").write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        settings.load({}, environment)
    assert str(caught.value.details["argument"]).split(".")[0] == key
    assert "config.toml" in caught.value.hint


@pytest.mark.parametrize("text", ["host = ", "host = 'a'\nhost = 'b'", "\x00", "= 1"])
def test_a_file_that_is_no_toml_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    assert "config.toml can't be read" in refusal(tmp_path, text).message


def test_a_file_that_is_no_text_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"host = '\xff'")
    assert str(path) in refusal(tmp_path, config=str(path)).message


def test_a_file_that_was_named_must_be_there_and_the_usual_one_need_not(tmp_path: Path) -> None:
    load(tmp_path)
    assert "absent.toml" in refusal(tmp_path, config=str(tmp_path / "absent.toml")).message


def test_a_wrong_variable_is_named_with_its_source(tmp_path: Path) -> None:
    error = refusal(tmp_path, environment={"GLIXD_PENDING": "many"})
    assert error.details["argument"] == "pending"
    assert "GLIXD_PENDING" in error.hint


def test_no_setting_turns_authorisation_off() -> None:
    words = ("auth", "polkit", "trust", "allow", "insecure", "debug", "test")
    assert not [name for name in Settings.model_fields if any(word in name for word in words)]


# -- places ------------------------------------------------------------------------------------------------------


def test_a_repository_brings_its_own_state_and_socket(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": "/run/user/7", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/bus"}
    own, other = load(tmp_path, environment=environment), load(tmp_path, environment=environment, repository="/srv/x")
    assert own.repository == tmp_path / ".config" / "glixos"
    assert own.socket == Path("/run/user/7/glixd/rpc.sock")
    assert own.bus == "session"
    assert other.socket == Path(f"/run/user/7/glixd/{repository_key('/srv/x')}.sock")
    assert other.state != own.state
    assert other.bus == "none", "only the default repository has a name on the bus"


def test_without_a_session_there_is_no_bus(tmp_path: Path) -> None:
    assert load(tmp_path).bus == "none"


@pytest.mark.parametrize("name", ["repository", "state", "socket"])
def test_a_relative_place_means_the_folder_the_daemon_was_started_in(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(load(tmp_path, **dict[str, Any]({name: "here"})), name) == str(tmp_path / "here")
    assert shown(load(tmp_path, environment={f"GLIXD_{name.upper()}": "./a/../here"}), name) == str(tmp_path / "here")


def test_system_mode_has_fixed_places(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    environment = {"GLIX_ROOT": "/mine", "XDG_RUNTIME_DIR": "/run/user/7"}
    chosen = load(tmp_path, environment=environment, mode="system", config=str(empty))
    places = (chosen.repository, chosen.state, chosen.socket)
    assert [str(place) for place in places] == ["/var/lib/glixd/repo", "/var/lib/glixd/state", "/run/glixd/rpc.sock"]
    assert chosen.bus == "system"


# -- what children are given -------------------------------------------------------------------------------------

HOSTILE = {
    "LD_PRELOAD": "/tmp/evil.so",
    "LD_LIBRARY_PATH": "/tmp",
    "LD_AUDIT": "/tmp/evil.so",
    "GIT_DIR": "/tmp/evil.git",
    "GIT_WORK_TREE": "/tmp",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.fsmonitor",
    "GIT_CONFIG_VALUE_0": "/tmp/evil",
    "GIT_SSH_COMMAND": "/tmp/evil",
    "GIT_EXEC_PATH": "/tmp",
    "GIT_ASKPASS": "/tmp/evil",
    "GIT_EXTERNAL_DIFF": "/tmp/evil",
    "GIT_OBJECT_DIRECTORY": "/tmp",
    "GIT_INDEX_FILE": "/tmp/index",
    "GIT_CONFIG_GLOBAL": "/tmp/gitconfig",
    "NIX_CONFIG": "accept-flake-config = true",
    "NIX_PATH": "nixpkgs=/tmp/evil",
    "NIX_USER_CONF_FILES": "/tmp/nix.conf",
    "NIX_BUILD_HOOK": "/tmp/evil",
    "NIX_REMOTE_SYSTEMS": "/tmp/machines",
    "NIX_SSHOPTS": "-oProxyCommand=/tmp/evil",
    "BASH_ENV": "/tmp/evil.sh",
    "ENV": "/tmp/evil.sh",
    "PYTHONPATH": "/tmp",
    "PYTHONSTARTUP": "/tmp/evil.py",
    "PERL5LIB": "/tmp",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "SSH_ASKPASS": "/tmp/evil",
    "EDITOR": "/tmp/evil",
    "PAGER": "/tmp/evil",
    "GITHUB_TOKEN": "secret",
    "HOME": "/home/alice",
    "XDG_CONFIG_HOME": "/home/alice/.config",
    "XDG_CACHE_HOME": "/home/alice/.cache",
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "tr_TR.UTF-8",
    "IFS": "x",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path=/bus",
    "GLIX_ROOT": "/tmp",
    "NIX_STORE": "/tmp",
    "XNIX_STORE_DIR": "/tmp",
    "NIX_STORE_DIR_X": "/tmp",
    "http_proxy_x": "evil",
}
PASSED = {
    "PATH": "/opt/nix/bin:/usr/bin",
    "NIX_STORE_DIR": "/s/store",
    "NIX_STATE_DIR": "/s/state",
    "NIX_LOG_DIR": "/s/log",
    "NIX_CONF_DIR": "/s/etc",
    "NIX_REMOTE": "daemon",
    "NIX_SSL_CERT_FILE": "/etc/ssl/ca.pem",
    "http_proxy": "http://proxy:3128",
    "https_proxy": "http://proxy:3128",
    "HTTPS_PROXY": "http://proxy:3128",
    "no_proxy": "localhost",
    "all_proxy": "socks://proxy",
    "ftp_proxy": "http://proxy",
    "TMPDIR": "/var/tmp",
    "LOCALE_ARCHIVE": "/locale",
}


def test_children_of_a_users_daemon_get_what_nix_needs_and_nothing_else(tmp_path: Path) -> None:
    chosen = load(tmp_path, state="/state")
    found = child_environment(chosen, {**HOSTILE, **PASSED})
    assert found == PASSED | {
        "HOME": "/state/home",
        "XDG_CACHE_HOME": "/state/cache",
        "XDG_CONFIG_HOME": "/state/home/.config",
        "XDG_STATE_HOME": "/state/home/.local/state",
        "XDG_DATA_HOME": "/state/home/.local/share",
        "NIX_USER_CONF_FILES": "",
        "LC_ALL": "C.UTF-8",
    }


def test_children_of_the_systems_daemon_get_the_path_of_its_unit_and_nothing_else(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    chosen = load(tmp_path, mode="system", config=str(empty))
    found = child_environment(chosen, {**HOSTILE, **PASSED})
    assert found == {**child_environment(chosen, {}), "PATH": PASSED["PATH"]}
    assert child_environment(chosen, {})["PATH"] == "/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin"


# -- registries --------------------------------------------------------------------------------------------------


def test_registries_keep_their_order_and_are_untrusted_unless_said_otherwise(tmp_path: Path) -> None:
    text = """
        [[registries]]
        url = "https://one.example/registry.json"
        trust = "trusted"
        [[registries]]
        url = "http://two.example/registry.json"
    """
    assert [(one.url, one.trust) for one in load(tmp_path, text).registries] == [
        ("https://one.example/registry.json", "trusted"),
        ("http://two.example/registry.json", "untrusted"),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "registry.json",
        "ftp://a.example/x",
        "https://",
        "https://user:secret@a.example/x",
        "https://a.example/a b",
        "file:x",
    ],
)
def test_a_registry_is_behind_a_plain_url(tmp_path: Path, url: str) -> None:
    assert "registries" in refusal(tmp_path, f'[[registries]]\nurl = "{url}"\n').message


def test_what_can_be_changed_on_the_way_is_not_trusted(tmp_path: Path) -> None:
    text = '[[registries]]\nurl = "http://{host}/x"\ntrust = "trusted"\n'
    assert "https" in refusal(tmp_path, text.replace("{host}", "a.example")).message
    assert load(tmp_path, text.replace("{host}", "127.0.0.1:8000")).registries
