# SPDX-License-Identifier: GPL-3.0-or-later
"""The D-Bus library: the only file of glixd that imports it, chosen, checked and bounded.

dbus-next is the library; dbus-fast, its maintained continuation, takes its place where GLIXD_BUS_LIBRARY says so. Of either
this takes what builds, marshals and unmarshals messages. The parts that are used are checked when this is imported, so that
a release that differs fails there.
"""

from __future__ import annotations

import io
import os
import typing
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from glixd.errors import Failed

if TYPE_CHECKING:
    from dbus_next import Message, MessageFlag, MessageType, Variant

__all__ = ["NAME", "Message", "MessageFlag", "MessageType", "Variant", "bound", "kept", "marshalled", "parse_address"]

VARIABLE: Final = "GLIXD_BUS_LIBRARY"
RELEASES: Final = {"dbus-next": "0.2.3", "dbus-fast": "5.2.0"}
"""The libraries, and the release of each whose private parts are known."""
MAX_SIGNATURES: Final = 128
"""Parsed signatures that the library keeps: strangers make them up."""


def _chosen(name: str) -> str:
    if name not in RELEASES:
        raise Failed(f"{VARIABLE} is {name!a}, and the libraries are {' and '.join(RELEASES)}.")
    return name


NAME: Final = _chosen(os.environ.get(VARIABLE, "dbus-next"))

if not hasattr(typing, "no_type_check_decorator"):  # dbus-next decorates with it; Python 3.15 has dropped it
    typing.no_type_check_decorator = lambda decorator: decorator


def _imported() -> tuple[Any, Any, Any, Any]:
    """The library, its signatures, and what it keeps to itself: addresses and the unmarshaller."""
    package = NAME.replace("-", "_")
    with warnings.catch_warnings():  # Python 3.13 announces the end of the decorator
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            library = import_module(package)
        except ImportError as error:
            raise Failed(f"{VARIABLE} is {NAME}, and {NAME} is not installed.") from error
        names = ("signature", "_private.address", "_private.unmarshaller", "__version__")
        signature, address, unmarshaller, version = (import_module(f"{package}.{name}") for name in names)
    if version.__version__ != RELEASES[NAME]:
        raise ImportError(
            f"{NAME} {RELEASES[NAME]} is needed, and {version.__version__} was found: check the private parts used here"
        )
    return library, signature, address, unmarshaller


_library, _signature, _address, _unmarshaller = _imported()

if not TYPE_CHECKING:
    Message, MessageFlag, MessageType, Variant = (
        getattr(_library, name) for name in ("Message", "MessageFlag", "MessageType", "Variant")
    )
parse_address = _address.parse_address


def marshalled(message: Message) -> bytes:
    """A message as it is sent; file descriptors never are."""
    return bytes(message._marshall(False))


def unmarshalled(data: bytes) -> Message | None:
    """The message in `data`; raises whatever the parts of the library raise for what is none."""
    return _unmarshaller.Unmarshaller(io.BytesIO(data)).unmarshall()


def kept() -> int:
    """How many parsed signatures the library keeps now."""
    if NAME == "dbus-next":
        return len(_signature.SignatureTree._cache)
    return int(_signature.get_signature_tree.cache_info().currsize)


def bound() -> None:
    """Let the library forget the signatures that it has parsed, when they are many."""
    if kept() > MAX_SIGNATURES:
        if NAME == "dbus-next":
            _signature.SignatureTree._cache.clear()
        else:
            _signature.get_signature_tree.cache_clear()


def _check() -> None:
    """Whether everything private that is used here is there."""
    known = hasattr(Message, "_marshall") and hasattr(_unmarshaller.Unmarshaller, "unmarshall")
    if NAME == "dbus-next":
        known = known and isinstance(getattr(_signature.SignatureTree, "_cache", None), dict)
    else:
        known = known and hasattr(getattr(_signature, "get_signature_tree", None), "cache_clear")
    if not known:
        raise ImportError(f"{NAME} has other private parts than it had")


_check()
