# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: (operation, what it resolved to, caller) → the polkit actions that must all be allowed. Default deny.

The trust of a package comes from what was resolved, never from what the caller says. Details stand in a password dialogue:
they are printable ASCII, short, and never a value of a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from glixd.actions import strength
from glixd.api import Caller, Policy, Scope
from glixd.errors import NotAllowed
from glixd.protocol import POLKIT_PREFIX
from glixd.values import dataclass

DETAIL_LIMIT: Final = 256
"""Characters of one detail."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that a request would touch."""

    name: str
    flake: str = ""
    scope: str = Scope.SYSTEM
    user: str | None = None
    trusted: bool = False
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be authorised: the operation's policy, and what it resolved to."""

    policy: Policy
    host: str = ""
    transaction: str = ""
    digest: str = ""
    targets: tuple[Target, ...] = ()
    owner: int | None = None
    """The uid of the transaction that is read or cancelled."""
    skips_evaluation: bool = False
    sources: tuple[str, ...] = ()
    """Flake URLs that the configuration itself would come from."""
    keys: tuple[str, ...] = ()
    """Keys that would change; never their values."""
    author: str = ""
    """Who wrote the edits that would be taken over; by default the caller."""


@dataclass(frozen=True, slots=True)
class Check:
    """One polkit action that must be allowed, with what its rules and its dialogue are told."""

    action: str
    details: Mapping[str, str]


class Authority(Protocol):
    """Whoever decides. Built once, by the daemon; tests build their own."""

    async def authorise(self, caller: Caller, checks: Sequence[Check], *, interactive: bool) -> None:
        """Return when every check is allowed; raise NotAllowed else. An answer that is not understood is a refusal."""


class OwnerOnly:
    """User mode: the user whose daemon this is may do everything, nobody else anything."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    async def authorise(self, caller: Caller, checks: Sequence[Check], *, interactive: bool) -> None:
        """Allow the owner; refuse everybody else, whatever is asked."""
        if caller.uid != self._uid:
            raise NotAllowed(
                f"This is the daemon of uid {self._uid}; uid {caller.uid} may not use it.",
                hint="Use your own: glixctl --mode user",
            )


def checks(request: Request, caller: Caller) -> tuple[Check, ...]:
    """The actions that `request` needs, the strongest first; none for what everybody may read."""
    rule = _RULES.get(request.policy)
    if rule is None:
        raise NotAllowed(f"The operation has no policy ({request.policy}), so nobody may do it.")
    return tuple(rule(request, caller))


def all_checks(requests: Sequence[Request], caller: Caller) -> tuple[Check, ...]:
    """The actions that several parts of one request need together, each once, the strongest first."""
    found = [check for request in requests for check in checks(request, caller)]
    unique = {(check.action, *sorted(check.details.items())): check for check in found}
    return tuple(sorted(unique.values(), key=_strength))


def prompted(closed: Sequence[Check], everything: Sequence[Check]) -> Check:
    """What a person is asked: the strongest of the checks that are `closed`, in the words of everything that it opens.

    Its own details stay as they are, since rules read them; what is added is for the person alone.
    """
    asked = closed[0]
    if len(everything) < 2:
        return asked
    parts: dict[str, list[str]] = {}
    for check in everything:
        parts.setdefault(check.action.removeprefix(POLKIT_PREFIX), []).append(_subject(check))
    told = "; ".join(" ".join([action, ", ".join(filter(None, names))]) for action, names in parts.items())
    added = {
        "parts": _plain(told),
        "polkit.message": f"Authentication is required for {len(everything)} steps: $(parts)",
    }
    return Check(asked.action, {**asked.details, **added})


def _subject(check: Check) -> str:
    """What a check is about, in a word."""
    keys = ("package", "url", "files", "inputs", "undoes", "generations", "host", "owner")
    return next((value for key in keys if (value := check.details.get(key))), "")


def _read(_request: Request, _caller: Caller) -> list[Check]:
    return []


def _read_transaction(request: Request, caller: Caller) -> list[Check]:
    if request.owner in (None, caller.uid):
        return []
    return [_check("transaction-read-other", owner=str(request.owner), transaction=request.transaction)]


def _cancel(request: Request, caller: Caller) -> list[Check]:
    if request.owner == caller.uid:
        return []
    return [_check("transaction-cancel-other", owner=str(request.owner), transaction=request.transaction)]


def _host_manage(request: Request, _caller: Caller) -> list[Check]:
    found = [_check("source-modify", url=url, **_whole(request)) for url in request.sources]
    return [*found, *_common(request), _check("host-manage", keys=_names(request.keys), **_whole(request))]


def _install(request: Request, caller: Caller) -> list[Check]:
    found = [_install_one(request, target, caller) for target in request.targets]
    return [*_common(request), *sorted(found, key=_strength)]


def _install_one(request: Request, target: Target, caller: Caller) -> Check:
    trusted = "yes" if target.trusted else "no"
    if target.scope != Scope.HOME:
        action = "package-install-trusted" if target.trusted else "package-install-untrusted"
        return _check(action, **_about(request, target), trusted=trusted)
    if target.user != caller.login:
        return _check("home-manage-other", **_about(request, target), trusted=trusted)
    action = "home-manage-own" if target.trusted else "home-manage-own-untrusted"
    return _check(action, **_about(request, target), trusted=trusted)


def _change(action: str) -> Callable[[Request, Caller], list[Check]]:
    """The rule for changing what is there: its own action for the system, the home's for a home."""

    def rule(request: Request, caller: Caller) -> list[Check]:
        found = []
        for target in request.targets:
            if target.scope != Scope.HOME:
                found.append(_check(action, keys=_names(request.keys), **_about(request, target)))
            elif target.user == caller.login:
                found.append(_check("home-manage-own", **_about(request, target), trusted="yes"))
            else:
                found.append(_check("home-manage-other", **_about(request, target)))
        if not request.targets:
            found.append(_check(action, **_whole(request)))
        return [*_common(request), *sorted(found, key=_strength)]

    return rule


def _update(request: Request, _caller: Caller) -> list[Check]:
    found = [_check("flake-update", inputs=_targets(request), **_whole(request))]
    untrusted = [target for target in request.targets if not target.trusted]
    return [
        *_common(request),
        *(_check("package-install-untrusted", **_about(request, target), trusted="no") for target in untrusted),
        *found,
    ]


def _rollback(request: Request, _caller: Caller) -> list[Check]:
    ends = {"from": request.targets[0].name, "to": request.targets[-1].name} if request.targets else {}
    return [*_common(request), _check("system-rollback", undoes=_targets(request), **ends, **_whole(request))]


def _adopt(request: Request, caller: Caller) -> list[Check]:
    author = request.author or caller.login
    return [
        *_common(request),
        _check("repo-adopt-edits", files=_targets(request), author=author, **_whole(request)),
    ]


def _garbage(request: Request, _caller: Caller) -> list[Check]:
    return [_check("garbage-collect", generations=_targets(request), **_whole(request))]


def _build(request: Request, _caller: Caller) -> list[Check]:
    """Building what is committed changes nothing; who puts it into effect asks for that (see ASKED_BY_ACTIVATOR)."""
    return _common(request)


def _common(request: Request) -> list[Check]:
    return [_check("evaluation-skip", **_whole(request))] if request.skips_evaluation else []


def _whole(request: Request) -> dict[str, str]:
    """What every rule may want to know of a request."""
    return {"host": request.host, "transaction": request.transaction, "digest": request.digest}


def _targets(request: Request) -> str:
    return _names(tuple(target.name for target in request.targets))


def _names(names: Sequence[str]) -> str:
    return ",".join(names)


def _about(request: Request, target: Target) -> dict[str, str]:
    return {
        "package": target.name,
        "flake": target.flake,
        "rev": target.revision,
        "scope": target.scope,
        "target_user": target.user or "",
        **_whole(request),
    }


def _check(action: str, **details: str) -> Check:
    return Check(POLKIT_PREFIX + action, {name: _plain(value) for name, value in details.items()})


def _plain(text: str) -> str:
    shown = _UNUSUAL.sub("?", text)
    return shown if len(shown) <= DETAIL_LIMIT else shown[: DETAIL_LIMIT - 3] + "..."


_UNUSUAL: Final = re.compile(r"[^ -~]")


def _strength(check: Check) -> int:
    return strength(check.action)


_RULES: Final[Mapping[Policy, Callable[[Request, Caller], list[Check]]]] = {
    Policy.READ: _read,
    Policy.READ_TRANSACTION: _read_transaction,
    Policy.CANCEL: _cancel,
    Policy.HOST_MANAGE: _host_manage,
    Policy.ADOPT: _adopt,
    Policy.UPDATE: _update,
    Policy.ROLLBACK: _rollback,
    Policy.INSTALL: _install,
    Policy.REMOVE: _change("package-remove"),
    Policy.CONFIGURE: _change("package-configure"),
    Policy.GARBAGE: _garbage,
    Policy.BUILD: _build,
    Policy.ACTIVATE: _build,
}
