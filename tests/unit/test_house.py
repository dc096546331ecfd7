# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the house that no linter can express."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).resolve().parent.parent.parent
LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later"
LOCKS = ("requirements-build.lock", "requirements.lock", "requirements-dev.lock")
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())

NOT_SOURCE = (".git", ".venv", ".cache", "result", "dist")
OWNED_BY_USERS = (Path("glixd/templates"), Path("tests/fixtures/glix-style"))
"""What `init` writes into a user's repository, and one as its user keeps it: theirs, with a licence of their choice."""

BUILTIN = sys.stdlib_module_names
SLOW_TO_IMPORT = {"asyncio", "subprocess", "logging", "inspect", "dataclasses", "sqlite3", "urllib", "http", "email"}


def _files() -> Iterator[Path]:
    pending = [CHECKOUT]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            if path.name in NOT_SOURCE or path.name.startswith("result-") or path.is_symlink():
                continue
            if path.is_dir():
                pending.append(path)
            else:
                yield path


def _is_source(path: Path) -> bool:
    relative = path.relative_to(CHECKOUT)
    if any(relative.is_relative_to(folder) for folder in OWNED_BY_USERS):
        return False
    if path.suffix in (".py", ".nix", ".sh"):
        return True
    with path.open("rb") as opened:
        return opened.read(2) == b"#!"


def _python(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))]


def _name(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def _imports(nodes: Iterator[ast.AST]) -> set[str]:
    """The modules that NODES import, `from a import b` as `a.b` where `a` is one of our own packages."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module in ("glixd", "glixctl"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: everything but the inside of functions and of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _at_import(child)


def _top(module: str) -> str:
    return module.partition(".")[0]


def test_every_source_file_says_its_licence_first() -> None:
    silent = [
        _name(path)
        for path in _files()
        if _is_source(path) and LICENCE not in "\n".join(path.read_text().splitlines()[:2])
    ]
    assert silent == []


def test_the_packages_themselves_hold_a_docstring_at_most() -> None:
    for package in ("glixd", "glixctl"):
        held = [node for node in _parse(CHECKOUT / package / "__init__.py").body if not _is_docstring(node)]
        assert held == [], package


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def test_the_protocol_needs_the_standard_library_alone_and_little_of_it() -> None:
    imported = {_top(module) for module in _imports(_at_import(_parse(CHECKOUT / "glixd/protocol.py")))}
    assert imported == {"__future__", "os"}
    imported = {_top(module) for module in _imports(ast.walk(_parse(CHECKOUT / "glixd/codes.py")))}
    assert imported <= (BUILTIN - SLOW_TO_IMPORT) | {"glixd"}


def test_glixctl_starts_with_the_standard_library_and_the_protocol_alone() -> None:
    surplus = {
        (_name(path), module)
        for path in _loaded_at_start()
        for module in _imports(_at_import(_parse(path)))
        if _top(module) not in BUILTIN | {"glixctl"} and not f"{module}.".startswith("glixd.protocol.")
    }
    assert surplus == set()


def _loaded_at_start() -> set[Path]:
    """The files of glixctl that a command loads before it does anything: what __main__ and the verbs lead to."""
    loaded: set[Path] = set()
    pending = [CHECKOUT / "glixctl/__main__.py", *_python("glixctl/commands")]
    while pending:
        path = pending.pop()
        if path not in loaded:
            loaded.add(path)
            pending += [found for module in _imports(_at_import(_parse(path))) for found in _own_files(module)]
    return loaded


def _own_files(module: str) -> list[Path]:
    stem = CHECKOUT / module.replace(".", "/")
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return [path for path in candidates if _top(module) == "glixctl" and path.exists()]


def test_glixd_starts_processes_behind_its_doors_only() -> None:
    doors = tuple(Path("glixd", name) for name in ("backends", "evaluator", "activator", "export"))
    outside = [
        _name(path)
        for path in _python("glixd")
        if not any(path.relative_to(CHECKOUT).is_relative_to(door) for door in doors)
        and (_imports(ast.walk(_parse(path))) & {"subprocess", "multiprocessing", "pty"} or _starts_process(path))
    ]
    assert outside == []


def _starts_process(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("create_subprocess_exec", "create_subprocess_shell", "fork")
        for node in ast.walk(_parse(path))
    )


def test_glixd_exits_from_its_main_modules_only() -> None:
    assert [
        f"{_name(path)}:{node.lineno}"
        for path in _python("glixd")
        if path.name != "__main__.py"
        for node in ast.walk(_parse(path))
        if (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in EXITS
        )
        or (isinstance(node, ast.Name) and node.id == "SystemExit" and isinstance(node.ctx, ast.Load))
    ] == []


EXITS = {("sys", "exit"), ("os", "_exit")}


def test_no_test_replaces_our_own_code_with_a_mock() -> None:
    assert [
        _name(path) for path in _python("tests") if any("mock" in name for name in _imports(ast.walk(_parse(path))))
    ] == []


def test_the_version_is_one_constant() -> None:
    pattern = re.compile(PROJECT["tool"]["hatch"]["version"]["pattern"], re.MULTILINE)
    versions = pattern.findall((CHECKOUT / "glixd/protocol.py").read_text())
    assert len(versions) == 1
    assert re.fullmatch(r"\d+\.\d+\.\d+", versions[0])
    assert "version" in PROJECT["project"]["dynamic"]
    literal = re.compile(rf"""(?<![\w.])["']{re.escape(versions[0])}["']|^__version__ *[:=]""", re.MULTILINE)
    repeated = [
        _name(path)
        for path in [*_python("glixd", "glixctl"), CHECKOUT / "flake.nix", CHECKOUT / "pyproject.toml"]
        if path.exists() and path != CHECKOUT / "glixd/protocol.py" and literal.search(path.read_text())
    ]
    assert repeated == []


def _locked(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Name → (version, hashes) of every requirement of LOCK; anything that is neither is refused."""
    locked: dict[str, tuple[str, list[str]]] = {}
    text = (CHECKOUT / lock).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pinned = re.match(r"([a-z0-9-]+)==(\S+)( ; [^-]*?)?((?: +--hash=sha256:[0-9a-f]{64})*)\s*$", line)
        assert pinned, f"{lock}: {line[:80]}"
        locked[pinned[1]] = (pinned[2], re.findall(r"sha256:[0-9a-f]{64}", pinned[4]))
    return locked


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_pins_and_hashes_every_requirement_and_names_no_index(lock: str) -> None:
    locked = _locked(lock)
    assert locked
    assert [name for name, (_, hashes) in locked.items() if not hashes] == []
    text = (CHECKOUT / lock).read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def _required(lock: str) -> list[Requirement]:
    groups = PROJECT["dependency-groups"]
    runtime = PROJECT["project"]["dependencies"]
    match lock:
        case "requirements-build.lock":
            lines = groups["build"]
        case "requirements.lock":
            lines = runtime
        case _:
            lines = [*runtime, *groups["build"], *groups["dev"]]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_satisfies_the_project_file(lock: str) -> None:
    locked = _locked(lock)
    for requirement in _required(lock):
        assert requirement.name in locked, requirement
        assert requirement.specifier.contains(locked[requirement.name][0]), requirement


def test_the_locks_agree() -> None:
    everything = _locked("requirements-dev.lock")
    for lock in LOCKS:
        assert _locked(lock).items() <= everything.items(), lock


def _dependency_lists() -> Iterator[list[str]]:
    yield PROJECT["build-system"]["requires"]
    yield PROJECT["project"]["dependencies"]
    yield from PROJECT["project"]["optional-dependencies"].values()
    yield from PROJECT["dependency-groups"].values()


def test_every_dependency_says_what_it_is_for() -> None:
    lines = (CHECKOUT / "pyproject.toml").read_text().splitlines()
    unexplained = [
        dependency
        for dependencies in _dependency_lists()
        for dependency in dependencies
        if not all(re.search(r"\s#\s+\S+ \S+", line) for line in lines if f'"{dependency}"' in line)
    ]
    assert unexplained == []


def test_what_runs_as_root_is_short_and_needs_the_standard_library_alone() -> None:
    lines, modules = 0, set[str]()
    for path in sorted((CHECKOUT / "glixd" / "activator").glob("*.py")):
        tree = ast.parse(path.read_text())
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
        told = {line for node in texts for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        for number, line in enumerate(path.read_text().splitlines(), 1):
            lines += bool(line.strip()) and not line.lstrip().startswith("#") and number not in told
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module or "")
    assert 150 < lines < 300
    own = {name for name in modules if name.split(".")[0] == "glixd"}
    assert own <= {"glixd.activator", "glixd.activator.order"}
    assert {name.split(".")[0] for name in modules - own} <= sys.stdlib_module_names
