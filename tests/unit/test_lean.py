# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daemon does not load: its memory and its start are mostly what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glixd.lean import loading

CHECKOUT = Path(__file__).resolve().parents[2]


def loaded(*lines: str) -> set[str]:
    code = "\n".join(["import sys", f"sys.path.insert(0, {str(CHECKOUT)!r})", *lines, "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_daemon_loads_neither_colours_nor_openssl_and_can_still_load_them() -> None:
    found = loaded("import glixd.__main__, glixd.daemon")
    assert {"pydantic.main", "asyncio"} <= found
    assert {"rich", "rich.console", "ssl", "_ssl", "http.client", "urllib.request"} & found == set()
    assert {"rich", "ssl"} <= loaded("import glixd.__main__, glixd.daemon", "import rich, ssl")


def test_what_is_loaded_is_not_searched_for_garbage_and_what_comes_later_is() -> None:
    code = """
import gc
from glixd.lean import loading
with loading():
    import glixd.daemon
    assert not gc.isenabled()
assert gc.isenabled()
assert gc.get_freeze_count() > 10_000 > len(gc.get_objects())
knot = []
knot.append(knot)
del knot
assert gc.collect() >= 1
"""
    assert "glixd.daemon" in loaded(code)


def test_what_is_loaded_already_stays() -> None:
    with loading(without=("json", "no_such_module")):
        import json

        assert json.dumps([]) == "[]"
        with pytest.raises(ImportError):
            import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert "json" in sys.modules
    assert "no_such_module" not in sys.modules
