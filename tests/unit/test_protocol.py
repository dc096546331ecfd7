# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary of the wire: every error has its row, and the numbers that scripts rely on never move."""

from __future__ import annotations

from pathlib import Path

import pytest

from glixd import protocol
from glixd.protocol import ERRORS, ErrorCode, Exit, State, json_code

PUBLISHED = {
    ErrorCode.INVALID_ARGUMENT: (-32602, 2),
    ErrorCode.UNKNOWN_OPERATION: (-32601, 2),
    ErrorCode.MALFORMED: (-32600, 2),
    ErrorCode.AMBIGUOUS: (-32004, 5),
    ErrorCode.CORE_TOO_OLD: (-32005, 5),
    ErrorCode.UNKNOWN_HOST: (-32006, 4),
    ErrorCode.UNKNOWN_PACKAGE: (-32007, 4),
    ErrorCode.UNKNOWN_TRANSACTION: (-32008, 4),
    ErrorCode.NOT_INSTALLED: (-32009, 4),
    ErrorCode.ALREADY_INSTALLED: (-32010, 5),
    ErrorCode.BAD_REFERENCE: (-32011, 5),
    ErrorCode.LOCAL_PATH_REFUSED: (-32012, 5),
    ErrorCode.REFERENCE_MOVED: (-32013, 5),
    ErrorCode.LOCK_FAILED: (-32014, 1),
    ErrorCode.EVALUATION_FAILED: (-32015, 1),
    ErrorCode.BUILD_FAILED: (-32016, 1),
    ErrorCode.ACTIVATION_FAILED: (-32017, 1),
    ErrorCode.NO_REPOSITORY: (-32018, 4),
    ErrorCode.MANIFEST_INVALID: (-32019, 5),
    ErrorCode.MANAGED_FILE_EDITED: (-32020, 5),
    ErrorCode.MANAGED_REGION_BROKEN: (-32021, 5),
    ErrorCode.CONFLICT: (-32022, 5),
    ErrorCode.NOTHING_TO_UNDO: (-32023, 7),
    ErrorCode.NOT_AUTHORISED: (-32024, 3),
    ErrorCode.AUTHORISATION_DISMISSED: (-32025, 10),
    ErrorCode.AUTHORISATION_TIMED_OUT: (-32026, 11),
    ErrorCode.AUTHORISATION_UNAVAILABLE: (-32027, 12),
    ErrorCode.LIMIT_EXCEEDED: (-32028, 1),
    ErrorCode.TOO_LARGE: (-32029, 5),
    ErrorCode.NO_SPACE: (-32030, 1),
    ErrorCode.READ_ONLY: (-32031, 1),
    ErrorCode.BUSY: (-32032, 1),
    ErrorCode.CANCELLED: (-32033, 130),
    ErrorCode.INTERRUPTED: (-32034, 1),
    ErrorCode.TIMED_OUT: (-32035, 1),
    ErrorCode.CONSENT_NEEDED: (-32036, 5),
    ErrorCode.UNSUPPORTED_HERE: (-32037, 1),
    ErrorCode.INTERNAL: (-32038, 1),
    ErrorCode.UNKNOWN_INPUT: (-32039, 4),
    ErrorCode.UNKNOWN_GENERATION: (-32040, 4),
}
"""The JSON-RPC code and glixctl's exit code of every error, as scripts know them. Lines are added, never changed."""


def test_every_error_has_a_row() -> None:
    assert set(ERRORS) == set(ErrorCode)


def test_codes_stay_as_they_were_published() -> None:
    assert {code: (json_code(code), ERRORS[code].exit_code) for code in ErrorCode} == PUBLISHED


def test_no_number_stands_for_two_errors() -> None:
    numbers = [entry.number for entry in ERRORS.values()]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) > 0
    codes = [json_code(code) for code in ErrorCode]
    assert len(set(codes)) == len(codes)


def test_codes_are_the_specifications_own_or_in_its_range_for_servers() -> None:
    """JSON-RPC keeps −32768…−32100 for itself; −32000−n stays clear of it below a hundred errors."""
    own = {-32600, -32601, -32602}
    assert {code for code in map(json_code, ErrorCode) if code not in own} <= set(range(-32099, -32000))


def test_no_error_exits_as_success_and_every_meaning_is_a_sentence() -> None:
    for entry in ERRORS.values():
        assert entry.exit_code != Exit.DONE
        assert entry.meaning.endswith(".")


def test_exit_codes_are_those_that_scripts_know() -> None:
    assert Exit.all() == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "NOT_AUTHORISED": 3,
        "NOT_FOUND": 4,
        "REFUSED": 5,
        "UNREACHABLE": 6,
        "NOTHING_TO_DO": 7,
        "UNITS_FAILED": 8,
        "REBOOT_NEEDED": 9,
        "DISMISSED": 10,
        "TIMED_OUT": 11,
        "UNAVAILABLE": 12,
        "INTERRUPTED": 130,
    }


def test_three_states_are_final() -> None:
    assert [state for state in State if state.final] == [State.SUCCEEDED, State.FAILED, State.CANCELLED]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"GLIX_ROOT": "/srv/glix", "XDG_CONFIG_HOME": "/c", "HOME": "/h"}, "/srv/glix"),
        ({"XDG_CONFIG_HOME": "/c", "HOME": "/h"}, "/c/glixos"),
        ({"XDG_CONFIG_HOME": "relative", "HOME": "/h"}, "/h/.config/glixos"),
        ({"HOME": "/h"}, "/h/.config/glixos"),
    ],
)
def test_the_repository_of_user_mode(environment: dict[str, str], expected: str) -> None:
    assert protocol.user_repository(environment) == expected


def test_the_default_repository_has_the_plain_socket_and_another_one_its_own() -> None:
    environment = {"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert protocol.user_socket(environment) == "/run/user/7/glixd/rpc.sock"
    assert protocol.user_socket(environment, "/h/.config/glixos") == "/run/user/7/glixd/rpc.sock"
    other = protocol.user_socket(environment, "/elsewhere")
    assert other == f"/run/user/7/glixd/{protocol.repository_key('/elsewhere')}.sock"
    assert protocol.user_socket({"HOME": "/h"}) == "/h/.cache/glixd/run/rpc.sock"


def test_the_socket_of_a_repository_is_the_same_however_it_was_named() -> None:
    plain = {"HOME": "/h", "XDG_RUNTIME_DIR": "/run/user/7"}
    named = {**plain, "GLIX_ROOT": "/elsewhere"}
    assert protocol.user_socket(named) == protocol.user_socket(plain, "/elsewhere") != protocol.user_socket(plain)
    assert protocol.user_socket(named, "/h/.config/glixos") == protocol.user_socket(plain)


def test_a_repository_has_one_key_by_all_its_names(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    key = protocol.repository_key(str(tmp_path / "real"))
    assert protocol.repository_key(str(tmp_path / "link")) == key
    assert protocol.repository_key(str(tmp_path / "real" / "..") + "/real") == key
    assert protocol.repository_key(str(tmp_path)) != key
    assert len(key) == 16


def test_state_is_kept_for_each_repository() -> None:
    environment = {"HOME": "/h"}
    key = protocol.repository_key("/r")
    assert protocol.user_state(environment, "/r") == f"/h/.local/state/glixd/{key}"
    assert protocol.user_state({**environment, "XDG_STATE_HOME": "/s"}, "/r") == f"/s/glixd/{key}"
