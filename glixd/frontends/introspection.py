# SPDX-License-Identifier: GPL-3.0-or-later
"""The introspection XML of every object, written from the table of operations and the models of its answers."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from glixd import api
from glixd.frontends.bus_values import signature
from glixd.protocol import MANAGER_INTERFACE, OBJECT_PATH, TRANSACTION_INTERFACE
from glixd.values import dataclass

STANDARD: Final = "org.freedesktop.DBus."
PROPERTIES: Final = STANDARD + "Properties"
INTROSPECTABLE: Final = STANDARD + "Introspectable"
PEER: Final = STANDARD + "Peer"
OBJECT_MANAGER: Final = STANDARD + "ObjectManager"

DOCTYPE: Final = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
_DOC: Final = "org.gtk.GDBus.DocString"
SIGNALS: Final = {
    "Changed": "The manifest of a host changed.",
    "Staged": "An update of a host is built and can be switched to.",
}
"""What everybody is told about a host."""
_EMITS: Final = STANDARD + "Property.EmitsChangedSignal"
_QT_NAME: Final = "org.qtproject.QtDBus.QtTypeName"
_QT_TYPES: Final = {
    "a{sv}": "QVariantMap",
    "a{ss}": "QMap<QString,QString>",
    "aa{sv}": "QList<QVariantMap>",
    "a{sa{sv}}": "QMap<QString,QVariantMap>",
    "a{oa{sa{sv}}}": "QMap<QDBusObjectPath,QMap<QString,QVariantMap>>",
}
"""What Qt calls the types that it has no name for: its code generator refuses a document that does not say so."""


@dataclass(frozen=True, slots=True)
class Property:
    """One read-only property of an object."""

    name: str
    field: str
    signature: str
    emits: str
    """Whether PropertiesChanged tells of it: true, false or const."""
    description: str


MANAGER_PROPERTIES: Final = (
    Property("Version", "version", "s", "const", "The version of the daemon."),
    Property("Commit", "commit", "s", "const", "The commit the daemon was built from."),
)

_CHANGING: Final = ("finished", "commit", "step", "warnings", "log", "outcome", "error")


def _transaction_property(field: str, annotation: Any, description: str | None) -> Property:
    emits = "true" if field == "state" else "false" if field in _CHANGING else "const"
    name = "".join(word.capitalize() for word in field.split("_"))
    return Property(name, field, signature(annotation), emits, description or "")


TRANSACTION_PROPERTIES: Final = tuple(
    _transaction_property(name, field.annotation, field.description)
    for name, field in api.Transaction.model_fields.items()
)


def in_arguments(row: api.Operation) -> list[tuple[str, str]]:
    """Names and signatures of what a method takes: the required parameters in order, then the options."""
    fields = row.parameters.model_fields
    typed = [(name, signature(fields[name].annotation)) for name in api.required(row.parameters)]
    return [*typed, ("options", "a{sv}")]


@functools.cache
def manager() -> str:
    """The XML of the manager, without the objects below it."""
    return _xml([_manager_interface()], [PROPERTIES, OBJECT_MANAGER], ["Transaction"])


@functools.cache
def transaction() -> str:
    """The XML of a transaction."""
    return _xml([_transaction_interface()], [PROPERTIES], [])


def folder(children: Iterable[str]) -> str:
    """The XML of a path that has nothing but objects below it."""
    return _xml([], [], children)


def _xml(interfaces: list[Element], standard: list[str], children: Iterable[str]) -> str:
    node = Element("node")
    node.extend(interfaces)
    for name in (INTROSPECTABLE, PEER, *standard):
        node.append(ElementTree.fromstring(_STANDARD_XML[name]))  # noqa: S314 — text of our own
    _name_types_for_qt(node)
    for child in children:
        SubElement(node, "node", name=child)
    ElementTree.indent(node)
    return DOCTYPE + ElementTree.tostring(node, encoding="unicode") + "\n"


def _manager_interface() -> Element:
    interface = Element("interface", name=MANAGER_INTERFACE)
    _document(interface, f"The repository and everything that can be asked of it, at {OBJECT_PATH}.")
    for row in api.OPERATIONS.values():
        _method(interface, row)
    for name, what in SIGNALS.items():
        signal = SubElement(interface, "signal", name=name)
        _document(signal, what)
        SubElement(signal, "arg", name="host", type="s")
    for declared in MANAGER_PROPERTIES:
        _property(interface, declared)
    return interface


def _method(interface: Element, row: api.Operation) -> None:
    method = SubElement(interface, "method", name=row.name)
    _document(method, row.summary)
    fields = row.parameters.model_fields
    for name, type_signature in in_arguments(row):
        described = _options(row) if name == "options" else fields[name].description
        _argument(method, name, type_signature, "in", described)
    if row.kind is api.Kind.MUTATION:
        _argument(method, "transaction", "o", "out", "The transaction that was started.")
    else:
        _argument(method, "result", "a{sv}", "out", _members(row.result))


def _options(row: api.Operation) -> str:
    fields = row.parameters.model_fields
    lines = [
        f"{name} ({signature(fields[name].annotation)}): {fields[name].description or ''}".rstrip()
        for name in api.optional(row.parameters)
    ]
    return "\n".join(lines) or "None yet."


def _members(model: type[api.Value]) -> str:
    lines = [
        f"{name} ({signature(field.annotation)}): {field.description or ''}".rstrip(": ")
        for name, field in model.model_fields.items()
    ]
    return "\n".join(lines) or "Nothing."


def _transaction_interface() -> Element:
    interface = Element("interface", name=TRANSACTION_INTERFACE)
    _document(interface, "One change: what was asked, where it is and what came of it. What is not there yet is empty.")
    cancel = SubElement(interface, "method", name="Cancel")
    _document(cancel, api.operation("Cancel").summary)
    _argument(cancel, "options", "a{sv}", "in", "None yet.")
    progress = SubElement(interface, "signal", name="Progress")
    _document(progress, "How far it is; sent to those alone who watch it.")
    described = SubElement(progress, "arg", name="event", type="a{sv}")
    _document(described, _members(api.ProgressEvent))
    for declared in TRANSACTION_PROPERTIES:
        _property(interface, declared)
    return interface


def _property(interface: Element, declared: Property) -> None:
    element = SubElement(interface, "property", name=declared.name, type=declared.signature, access="read")
    SubElement(element, "annotation", name=_EMITS, value=declared.emits)
    if declared.description:
        _document(element, declared.description)


def _argument(method: Element, name: str, type_signature: str, direction: str, description: str | None) -> None:
    argument = SubElement(method, "arg", name=name, type=type_signature, direction=direction)
    if description:
        _document(argument, description)


def _document(element: Element, text: str) -> None:
    SubElement(element, "annotation", name=_DOC, value=text)


def _name_types_for_qt(node: Element) -> None:
    """Annotate every argument and property of a composite type: methods and signals count theirs by direction."""
    for declared in node.iter("property"):
        if named := _QT_TYPES.get(declared.get("type", "")):
            SubElement(declared, "annotation", name=_QT_NAME, value=named)
    for element in (*node.iter("method"), *node.iter("signal")):
        arguments = element.findall("arg")
        for direction in ("in", "out"):
            types = [one.get("type", "") for one in arguments if one.get("direction", "out") == direction]
            for number, type_signature in enumerate(types):
                if named := _QT_TYPES.get(type_signature):
                    name = f"{_QT_NAME}.{direction.capitalize()}{number}"
                    SubElement(element, "annotation", name=name, value=named)


_STANDARD_XML: Final = {
    INTROSPECTABLE: f"""<interface name="{INTROSPECTABLE}">
<method name="Introspect"><arg name="xml_data" type="s" direction="out"/></method>
</interface>""",
    PEER: f"""<interface name="{PEER}">
<method name="Ping"/>
<method name="GetMachineId"><arg name="machine_uuid" type="s" direction="out"/></method>
</interface>""",
    PROPERTIES: f"""<interface name="{PROPERTIES}">
<method name="Get"><arg name="interface_name" type="s" direction="in"/><arg name="property_name" type="s" direction="in"/>
<arg name="value" type="v" direction="out"/></method>
<method name="GetAll"><arg name="interface_name" type="s" direction="in"/>
<arg name="properties" type="a{{sv}}" direction="out"/></method>
<method name="Set"><arg name="interface_name" type="s" direction="in"/><arg name="property_name" type="s" direction="in"/>
<arg name="value" type="v" direction="in"/></method>
<signal name="PropertiesChanged"><arg name="interface_name" type="s"/><arg name="changed_properties" type="a{{sv}}"/>
<arg name="invalidated_properties" type="as"/></signal>
</interface>""",
    OBJECT_MANAGER: f"""<interface name="{OBJECT_MANAGER}">
<method name="GetManagedObjects">
<arg name="objpath_interfaces_and_properties" type="a{{oa{{sa{{sv}}}}}}" direction="out"/></method>
<signal name="InterfacesAdded"><arg name="object_path" type="o"/>
<arg name="interfaces_and_properties" type="a{{sa{{sv}}}}"/></signal>
<signal name="InterfacesRemoved"><arg name="object_path" type="o"/><arg name="interfaces" type="as"/></signal>
</interface>""",
}
