# SPDX-License-Identifier: GPL-3.0-or-later
"""How requests and answers are spelt on the bus."""

from __future__ import annotations

from typing import Any

import pytest
from dbus_next import Message, MessageFlag, Variant

from glixctl import bus
from glixctl.errors import ClientError, Disconnected, NotListening, Unreachable

XML = """<node>
  <interface name="org.freedesktop.DBus.Peer"><method name="Ping"/></interface>
  <interface name="org.glixos.Glix1.Manager">
    <method name="Add">
      <arg name="refs" type="as" direction="in"/><arg name="options" type="a{sv}" direction="in"/>
      <arg name="transaction" type="o" direction="out"/>
    </method>
    <method name="Set">
      <arg name="name" type="s" direction="in"/><arg name="changes" type="a{sv}" direction="in"/>
      <arg name="options" type="a{sv}" direction="in"/><arg name="transaction" type="o" direction="out"/>
    </method>
    <method name="Apply">
      <arg name="operations" type="aa{sv}" direction="in"/><arg name="options" type="a{sv}" direction="in"/>
      <arg name="transaction" type="o" direction="out"/>
    </method>
    <method name="Info"><arg name="options" type="a{sv}" direction="in"/><arg type="a{sv}" direction="out"/></method>
  </interface>
</node>"""


def test_the_daemon_describes_its_own_arguments() -> None:
    assert bus.methods(XML) == {
        "Add": [("refs", "as"), ("options", "a{sv}")],
        "Set": [("name", "s"), ("changes", "a{sv}"), ("options", "a{sv}")],
        "Apply": [("operations", "aa{sv}"), ("options", "a{sv}")],
        "Info": [("options", "a{sv}")],
    }


def test_dictionary_among_the_arguments_is_no_option() -> None:
    changes = {"name": "firefox", "changes": {"config.theme": "dark"}, "dry_run": True}
    message = bus.call("Set", changes, bus.methods(XML)["Set"])
    assert (message.signature, message.body[0]) == ("sa{sv}a{sv}", "firefox")
    assert message.body[1:] == [{"config.theme": Variant("s", "dark")}, {"dry_run": Variant("b", True)}]


def test_list_of_dictionaries_carries_the_types_of_what_is_in_it() -> None:
    parts = [{"operation": "Set", "name": "a", "changes": {"pin": ""}}, {"operation": "Add", "refs": ["b"]}]
    message = bus.call("Apply", {"operations": parts}, bus.methods(XML)["Apply"])
    assert message.signature == "aa{sv}a{sv}"
    first, second = message.body[0]
    assert first["changes"] == Variant("a{sv}", {"pin": Variant("s", "")})
    assert second == {"operation": Variant("s", "Add"), "refs": Variant("as", ["b"])}
    assert message._marshall()


def test_required_parameters_are_arguments_and_the_others_are_options() -> None:
    parameters = {"refs": ["a", "b"], "host": "pi", "dry_run": True, "interactive": True}
    message = bus.call("Add", parameters, bus.methods(XML)["Add"])
    assert (message.member, message.signature, message.body[0]) == ("Add", "asa{sv}", ["a", "b"])
    assert message.body[1] == {"host": Variant("s", "pi"), "dry_run": Variant("b", True)}
    assert message.flags is MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
    assert bus.call("Info", {}, bus.methods(XML)["Info"]).flags is MessageFlag.NONE


@pytest.mark.parametrize("parameters", [{"refs": ["a", "b\udcff"]}, {"refs": ["a"], "host": "\ud800"}])
def test_bytes_that_are_no_text_are_refused_before_the_bus_is_asked(parameters: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as caught:
        bus.call("Add", parameters, bus.methods(XML)["Add"])
    assert (caught.value.name, caught.value.exit_code) == ("Malformed", 2)


@pytest.mark.parametrize(
    ("value", "signature"), [(True, "b"), (3, "x"), (0.5, "d"), ("a", "s"), (["a"], "as"), ([], "as")]
)
def test_options_carry_their_type(value: Any, signature: str) -> None:
    assert bus.variant(value) == Variant(signature, value)


@pytest.mark.parametrize(
    ("signature", "body", "expected"),
    [
        ("", [], {}),
        ("o", ["/org/glixos/Glix1/Transaction/01abc"], {"transaction": "01abc"}),
        (
            "a{sv}",
            [{"hosts": Variant("aa{sv}", [{"name": Variant("s", "pi"), "packages": Variant("x", 3)}])}],
            {"hosts": [{"name": "pi", "packages": 3}]},
        ),
    ],
)
def test_an_answer_has_the_form_that_it_has_on_the_socket(
    signature: str, body: list[Any], expected: dict[str, Any]
) -> None:
    assert bus.result(Message(destination="x.y", path="/", member="X", signature=signature, body=body)) == expected


def test_an_error_of_the_daemon_keeps_its_name_hint_and_details() -> None:
    more = {"hint": Variant("s", "Try."), "details": Variant("a{sv}", {"n": Variant("x", 1)})}
    error = bus.error("org.glixos.Glix1.Error.NotInstalled", ["No.", more])
    assert (error.name, error.message, error.hint, error.details) == ("NotInstalled", "No.", "Try.", {"n": 1})
    assert error.exit_code == 4


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ServiceUnknown", NotListening), ("NameHasNoOwner", NotListening), ("NoReply", Disconnected), ("X", Unreachable)],
)
def test_an_error_of_the_bus_says_that_the_daemon_is_not_there(name: str, kind: type[Unreachable]) -> None:
    assert type(bus.error(f"org.freedesktop.DBus.Error.{name}", ["words"])) is kind
