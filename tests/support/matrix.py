# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix of who may do what: every operation of the table, asked by everybody, on both front-ends.

    python -m tests.support.matrix        writes the golden file anew, to be read before it is committed

A cell says how it ended: `yes`, or the name of the error with the action that was refused. No cell may be `yes` that nobody
has looked at: an operation without a row here fails a test, and so does a cell that is another one than before.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from glixd.protocol import OBJECT_PATH, TRANSACTION_PATH
from tests.support.daemon import Answer
from tests.support.principal import UPLOADED
from tests.support.repositories import EXAMPLES
from tests.support.system import WHEEL_RULE, System, session_rules, system

GOLDEN: Final = Path(__file__).resolve().parents[1] / "authorisation" / "golden" / "matrix.txt"
PRINCIPALS: Final = ("root", "wanda", "alice", "bob", "nobody")
"""root; a member of wheel at the machine; a user at the machine; another user, who is not; and nobody."""
TRANSPORTS: Final = ("socket", "bus")

OF_ROOT, OF_ALICE, BUNDLE = "<transaction of root>", "<transaction of alice>", "<bundle of a commit>"
BUILT: Final = "<build of another host>"
_TRANSACTION_FOLDER: Final = TRANSACTION_PATH


@dataclass(frozen=True)
class Row:
    """One request, with what is said of it."""

    label: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    transports: tuple[str, ...] = TRANSPORTS


def _dry(label: str, method: str, **parameters: Any) -> Row:
    """A mutation that is authorised and prepared like any other, and changes nothing."""
    return Row(f"{method} {label}".strip(), method, {**parameters, "dry_run": True, "evaluate": True})


def _read(method: str, **parameters: Any) -> Row:
    return Row(method, method, parameters)


def _of(method: str, whose: str, label: str, **parameters: Any) -> Row:
    return Row(f"{method} {label}", method, {"transaction": whose, **parameters})


def _standard(label: str, method: str, path: str, signature: str, *body: Any) -> Row:
    interface, _, member = method.rpartition(".")
    full = f"org.freedesktop.DBus.{interface}.{member}"
    return Row(label, full, {"path": path, "signature": signature, "body": list(body)}, ("bus",))


_TRANSACTION_INTERFACE: Final = "org.glixos.Glix1.Transaction"
_MANAGER_INTERFACE: Final = "org.glixos.Glix1.Manager"


STRANGER: Final = "path:./strangers/greeting"
"""A flake that nobody vouches for, and that needs no network."""
ROWS: Final = (
    _read("Ping"),
    _read("GetCapabilities"),
    _read("ListHosts"),
    _read("List"),
    _read("Show", name="firefox"),
    _read("Info"),
    _read("Resolve", refs=["hello"]),
    _read("ListInputs"),
    _read("Diff"),
    _read("Doctor"),
    _read("History"),
    _read("Search", query="hello"),
    _read("RefreshIndex"),
    _read("ListRegistries"),
    _read("RefreshRegistries"),
    _read("ShowRegistry", url="https://registry.example.invalid/r.json"),
    _read("ListGenerations"),
    _read("DiffGenerations"),
    _read("GetBundle"),
    _read("Upload", data=BUNDLE),
    _dry("a commit of a clone", "Push", upload=UPLOADED),
    _dry("what nobody uploaded", "Push", upload="0" * 26),
    _read("ListTransactions"),
    *(
        _of(method, whose, label)
        for method in ("GetTransaction", "Watch", "Unwatch", "Wait", "TransactionLog", "Cancel")
        for whose, label in ((OF_ROOT, "of root"), (OF_ALICE, "of alice"))
    ),
    _dry("another host", "Init", host="pi", user="bob", system="aarch64-linux"),
    _dry("trusted, system", "Add", refs=["hello"], scope="system"),
    _dry("untrusted, system", "Add", refs=[STRANGER], name="stranger", scope="system"),
    _dry("trusted, home of alice", "Add", refs=["hello"], user="alice"),
    _dry("untrusted, home of alice", "Add", refs=[STRANGER], name="stranger", user="alice"),
    _dry("trusted, home of bob", "Add", refs=["hello"], user="bob"),
    _dry("trusted and untrusted", "Add", refs=["hello", f"{STRANGER}-too"], scope="system"),
    Row(
        "Add unevaluated",
        "Add",
        {"refs": ["hello"], "scope": "system", "dry_run": True, "evaluate": False},
    ),
    _dry("of the system", "Remove", names=["firefox"]),
    _dry("of the home of alice", "Remove", names=["git"]),
    _dry("of both", "Remove", names=["git", "firefox"]),
    _dry("of the system", "Enable", names=["firefox"]),
    _dry("of the home of alice", "Disable", names=["git"]),
    _dry("a key of the system", "Set", name="firefox", changes={"config.theme": "dark"}),
    _dry("a key of the home of alice", "Set", name="git", changes={"config.theme": "dark"}),
    _dry("the reference, to an untrusted one", "Set", name="firefox", changes={"flake": STRANGER}),
    _dry("the scope, out of the home of alice", "Set", name="git", changes={"scope": "system"}),
    _dry("the user, from alice to bob", "Set", name="git", changes={"user": "bob"}),
    _dry("into the home of alice", "Move", names=["firefox"], user="alice"),
    _dry("out of the home of alice", "Move", names=["git"], scope="system"),
    _dry("a stranger out of the home of alice", "Move", names=["greeting"], scope="system"),
    _dry("a setting", "SetHost", changes={"auto_apply": "true"}),
    _dry("a registry", "SetHost", changes={"registry_url": "https://registry.example.invalid/r.json"}),
    _dry("", "RemoveHost", name="spare"),
    _dry("", "RenameHost", name="spare", to="other"),
    _dry("", "Update"),
    _dry("", "Adopt", everything=True),
    _dry("", "Rollback"),
    _dry("one trusted package", "Apply", operations=[{"operation": "Add", "refs": ["hello"], "scope": "system"}]),
    _dry(
        "more than one may",
        "Apply",
        operations=[
            {"operation": "Add", "refs": ["hello"], "scope": "system"},
            {"operation": "SetHost", "changes": {"auto_apply": "true"}},
        ],
    ),
    _dry("", "CollectGarbage", keep=3),
    _dry("", "Regenerate"),
    _dry("", "RememberGeneration", build=BUILT, generation=1),
    _dry("only builds", "Rebuild", action="dry-build"),
    Row(
        "Rebuild without what is broken",
        "Rebuild",
        {"action": "dry-build", "keep_going_without": True, "dry_run": True},
    ),
    # -- the standard interfaces of the bus
    _standard("Properties.Get of the manager", "Properties.Get", OBJECT_PATH, "ss", _MANAGER_INTERFACE, "Version"),
    _standard("Properties.GetAll of the manager", "Properties.GetAll", OBJECT_PATH, "s", _MANAGER_INTERFACE),
    _standard(
        "Properties.Set of the manager",
        "Properties.Set",
        OBJECT_PATH,
        "ssv",
        _MANAGER_INTERFACE,
        "Version",
        {"variant": "6.6.6"},
    ),
    *(
        row
        for whose, label in ((OF_ROOT, "of root"), (OF_ALICE, "of alice"))
        for row in (
            _standard(
                f"Properties.Get of a transaction {label}",
                "Properties.Get",
                f"{_TRANSACTION_FOLDER}/{whose}",
                "ss",
                _TRANSACTION_INTERFACE,
                "Outcome",
            ),
            _standard(
                f"Properties.GetAll of a transaction {label}",
                "Properties.GetAll",
                f"{_TRANSACTION_FOLDER}/{whose}",
                "s",
                _TRANSACTION_INTERFACE,
            ),
            _standard(
                f"Properties.Set of a transaction {label}",
                "Properties.Set",
                f"{_TRANSACTION_FOLDER}/{whose}",
                "ssv",
                _TRANSACTION_INTERFACE,
                "State",
                {"variant": "succeeded"},
            ),
            Row(
                f"Transaction.Cancel {label}",
                f"{_TRANSACTION_INTERFACE}.Cancel",
                {"path": f"{_TRANSACTION_FOLDER}/{whose}", "signature": "a{sv}", "body": [{}]},
                ("bus",),
            ),
            _standard(
                f"Introspect a transaction {label}",
                "Introspectable.Introspect",
                f"{_TRANSACTION_FOLDER}/{whose}",
                "",
            ),
        )
    ),
    _standard("Introspect the manager", "Introspectable.Introspect", OBJECT_PATH, ""),
    _standard("Introspect the folder of transactions", "Introspectable.Introspect", _TRANSACTION_FOLDER, ""),
    _standard("GetManagedObjects", "ObjectManager.GetManagedObjects", OBJECT_PATH, ""),
)


Matrix = dict[tuple[str, str], dict[str, str]]
"""(label, transport) → principal → cell."""


def measured() -> tuple[Matrix, set[str]]:
    """The matrix as it is, and the actions that were decided about."""
    rules = {**session_rules(), "50-glixd-wheel.rules": WHEEL_RULE.read_text()}
    with system(rules=rules) as at:
        transactions = _prepare(at)
        jobs = [(who, transport) for transport in TRANSPORTS for who in PRINCIPALS]
        with ThreadPoolExecutor(2) as pool:  # callers are processes of their own; all at once would only wait
            lists = list(pool.map(lambda job: _column(at, transactions, *job, lists=True), jobs))
            others = list(pool.map(lambda job: _column(at, transactions, *job, lists=False), jobs))
        matrix: Matrix = {}
        for (who, transport), *columns in zip(jobs, lists, others, strict=True):
            for label, cell in ((label, cell) for column in columns for label, cell in column.items()):
                matrix.setdefault((label, transport), {})[who] = cell
        decided = {action for event in at.events("authorisation decided") for action in event["actions"]}
        assert "defect" not in at.log()
        return matrix, decided


def _prepare(at: System) -> dict[str, str]:
    """Packages of the system and of a home, a second host, an edit, and a transaction of two users that has ended."""
    flake = (EXAMPLES / "pkg-greeting" / "flake.nix").read_text()
    at.commit({f"{STRANGER.removeprefix('path:./')}{end}/flake.nix": flake for end in ("", "-too")})
    with at.as_root() as root:
        for method, parameters in (
            ("Add", {"refs": ["firefox"], "scope": "system"}),
            ("Add", {"refs": ["git"], "user": "alice"}),
            ("Add", {"refs": [STRANGER], "name": "greeting", "user": "alice"}),
            ("Init", {"host": "spare", "user": "bob", "system": "x86_64-linux"}),
        ):
            ended = root.run(method, **parameters)
            assert ended["state"] == "succeeded", ended
        built = root.run("Rebuild", host="spare", action="dry-build")
        assert built["state"] == "succeeded", built
    [mine] = at.ask("alice", "socket", [("Add", {"refs": ["tmux"], "user": "alice"})])
    assert mine["state"] == "succeeded", mine
    edited = at.repository / "hosts" / "laptop" / "default.nix"
    edited.write_text(edited.read_text() + "# an edit by hand\n")
    return {OF_ROOT: ended["id"], OF_ALICE: mine["transaction"], BUILT: built["id"], BUNDLE: _bundle(at)}


def _bundle(at: System) -> str:
    """A commit on top of the repository, made in a copy of it, as a clone sends it."""
    copy = at.root / "copy"
    shutil.copytree(at.repository, copy, symlinks=True)
    git = [
        "git",
        "-c",
        "safe.directory=*",
        "-c",
        "user.name=Alice",
        "-c",
        "user.email=alice@example.org",
        "-C",
        f"{copy}",
    ]
    (copy / "shared.nix").write_text("{ }\n")
    for words in (["add", "shared.nix"], ["commit", "--quiet", "--message=Share"]):
        subprocess.run([*git, *words], check=True)
    made = subprocess.run(
        [*git, "bundle", "create", "--quiet", "-", "HEAD~1..HEAD", "HEAD"], check=True, capture_output=True
    )
    shutil.rmtree(copy)
    return base64.b64encode(made.stdout).decode()


LISTS: Final = ("ListTransactions", "GetManagedObjects", "Introspect the folder of transactions")
"""Requests whose answers tell of several transactions; they are made before there are more than one answer holds."""


def _column(at: System, transactions: Mapping[str, str], who: str, transport: str, *, lists: bool) -> dict[str, str]:
    asked = [row for row in ROWS if transport in row.transports and (row.label in LISTS) is lists]
    requests = [(row.method, _filled(row.parameters, transactions)) for row in asked]
    answers = at.ask(who, transport, requests)
    return {row.label: _cell(row, answer, transactions) for row, answer in zip(asked, answers, strict=True)}


def _filled(value: Any, transactions: Mapping[str, str]) -> Any:
    """With the ids of transactions in their places."""
    if isinstance(value, Mapping):
        return {name: _filled(one, transactions) for name, one in value.items()}
    if isinstance(value, str):
        for place, identity in transactions.items():
            value = value.replace(place, identity)
    return value


def _cell(row: Row, answer: Answer, transactions: Mapping[str, str]) -> str:
    if answer.get("error"):
        return " ".join(filter(None, (answer["error"], answer["action"].rpartition(".")[2])))
    seen = _seen(row, answer, transactions)
    return f"yes ({seen})" if seen else "yes"


def _seen(row: Row, answer: Answer, transactions: Mapping[str, str]) -> str:
    """Whose transactions an answer tells of, where it tells of several."""
    if row.label not in LISTS:
        return ""
    told = str(answer)
    names = {OF_ROOT: "root", OF_ALICE: "alice"}
    return "sees " + (", ".join(name for place, name in names.items() if transactions[place] in told) or "nothing")


def text(matrix: Matrix) -> str:
    """The matrix as the golden file has it: one line a request and transport, one column a principal."""
    heads = ["request", "on", *PRINCIPALS]
    lines = [[label, transport, *(cells[who] for who in PRINCIPALS)] for (label, transport), cells in matrix.items()]
    lines.sort(key=lambda line: line[:2])
    widths = [max(len(line[number]) for line in (heads, *lines)) for number in range(len(heads))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in (heads, *lines)
    )


if __name__ == "__main__":
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(text(measured()[0]))
