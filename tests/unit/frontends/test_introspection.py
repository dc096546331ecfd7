# SPDX-License-Identifier: GPL-3.0-or-later
"""The introspection says exactly what the table says, in the form that the D-Bus specification asks for."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from glixd import api
from glixd.frontends import introspection
from glixd.protocol import MANAGER_INTERFACE, TRANSACTION_INTERFACE

GOLDEN = Path(__file__).parent / "golden"
DOCUMENTS = {
    "manager.xml": introspection.manager,
    "transaction.xml": introspection.transaction,
}
SHAPE: dict[str, tuple[set[str], set[str], set[str]]] = {
    "node": ({"node", "interface"}, set(), {"name"}),
    "interface": ({"method", "signal", "property", "annotation"}, {"name"}, set()),
    "method": ({"arg", "annotation"}, {"name"}, set()),
    "signal": ({"arg", "annotation"}, {"name"}, set()),
    "arg": ({"annotation"}, {"type"}, {"name", "direction"}),
    "property": ({"annotation"}, {"name", "type", "access"}, set()),
    "annotation": (set(), {"name", "value"}, set()),
}
"""For every element: its children, its required attributes and its other ones, as the DTD of the specification has them."""


def interface(document: str, name: str) -> ElementTree.Element:
    found = ElementTree.fromstring(document).find(f"interface[@name='{name}']")
    assert found is not None
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_interface_changes_only_on_purpose(name: str) -> None:
    assert DOCUMENTS[name]() == (GOLDEN / name).read_text(encoding="utf-8"), (
        "The D-Bus interface has changed. If that is meant: python -m tests.unit.frontends.test_introspection"
    )


@pytest.mark.parametrize("document", [*(make() for make in DOCUMENTS.values()), introspection.folder(["a", "b"])])
def test_every_document_has_the_shape_of_the_dtd(document: str) -> None:
    assert document.startswith("<!DOCTYPE node PUBLIC")
    for element in ElementTree.fromstring(document).iter():
        children, needed, others = SHAPE[element.tag]
        assert {child.tag for child in element} <= children
        assert needed <= element.attrib.keys() <= needed | others
        assert element.get("direction", "in") in ("in", "out")
        assert element.get("access", "read") == "read"


def test_methods_are_the_operations_with_typed_arguments_in_order_and_options_last() -> None:
    methods = interface(introspection.manager(), MANAGER_INTERFACE).findall("method")
    assert [method.get("name") for method in methods] == list(api.OPERATIONS)
    for method in methods:
        row = api.OPERATIONS[method.get("name", "")]
        taken = [argument for argument in method.findall("arg") if argument.get("direction") == "in"]
        given = [argument for argument in method.findall("arg") if argument.get("direction") == "out"]
        assert [argument.get("name") for argument in taken] == [*api.required(row.parameters), "options"]
        assert taken[-1].get("type") == "a{sv}"
        assert [argument.get("type") for argument in given] == ["o" if row.kind is api.Kind.MUTATION else "a{sv}"]


def test_options_are_documented_one_by_one() -> None:
    add = interface(introspection.manager(), MANAGER_INTERFACE).find(
        "method[@name='Add']/arg[@name='options']/annotation"
    )
    assert add is not None
    documented = [line.split(" (")[0] for line in add.get("value", "").split("\n")]
    assert documented == api.optional(api.AddParameters)


def test_properties_of_a_transaction_are_the_fields_of_the_model() -> None:
    declared = interface(introspection.transaction(), TRANSACTION_INTERFACE).findall("property")
    names = [name.title().replace("_", "") for name in api.Transaction.model_fields]
    assert [one.get("name") for one in declared] == names


def main() -> int:
    """Write the golden files anew; check them with `xmllint --dtdvalid …/introspect.dtd`, which comes with libdbus."""
    GOLDEN.mkdir(exist_ok=True)
    for name, make in DOCUMENTS.items():
        (GOLDEN / name).write_text(make(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
