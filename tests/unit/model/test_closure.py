# SPDX-License-Identifier: GPL-3.0-or-later
"""Closures compared: names and versions as nix tells them apart, what became of packages, units and the need of a reboot."""

from __future__ import annotations

import pytest

from glixd.model.closure import Kind, Units, compare, compare_versions, needs_reboot, parse_name, units


def path(name: str, digit: str = "0") -> str:
    return f"/nix/store/{digit * 32}-{name}"


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("hello-2.12", "hello", "2.12"),
        ("python3.13-requests-2.32", "python3.13-requests", "2.32"),
        ("nix-0.12pre12876", "nix", "0.12pre12876"),
        ("a-b-c-1234pre5+git", "a-b-c", "1234pre5+git"),
        ("a-b-c", "a-b-c", ""),
        ("a-1-2", "a", "1-2"),
        ("etc", "etc", ""),
        ("x-_1", "x", "_1"),
        ("trailing-", "trailing-", ""),
    ],
)
def test_names_are_parsed_as_nix_does(text: str, name: str, version: str) -> None:
    assert parse_name(text) == (name, version)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("1.0", "2.3", -1),
        ("2.1", "2.3", -1),
        ("2.3", "2.3", 0),
        ("2.5", "2.3", 1),
        ("3.1", "2.3", 1),
        ("2.3.1", "2.3", 1),
        ("2.3.1", "2.3a", 1),
        ("2.3pre1", "2.3", -1),
        ("2.3pre3", "2.3pre12", -1),
        ("2.3a", "2.3c", -1),
        ("2.3pre1", "2.3c", -1),
        ("2.3pre1", "2.3q", -1),
        ("10", "9", 1),
        ("1-2", "1.2", 0),
    ],
)
def test_versions_are_compared_as_nix_does(one: str, other: str, expected: int) -> None:
    assert compare_versions(one, other) == expected
    assert compare_versions(other, one) == -expected


def test_packages_that_came_went_and_moved_are_told_with_their_versions() -> None:
    before = {
        path("hello-2.12"): 10,
        path("perl-5.38"): 20,
        path("perl-5.38-man"): 1,
        path("gone-1"): 5,
        path("etc"): 1,
    }
    after = {path("hello-2.12", "1"): 11, path("perl-5.40"): 30, path("new-0.1"): 7, path("etc", "1"): 2}
    found = compare(before, after)
    assert [(one.name, one.kind, one.before, one.after) for one in found.packages] == [
        ("gone", Kind.REMOVED, ("1",), ()),
        ("new", Kind.ADDED, (), ("0.1",)),
        ("perl", Kind.UPGRADED, ("5.38",), ("5.40",)),
    ]
    assert found.rebuilt == 1, "hello has the same version and is another path; etc is no package"
    assert (found.size_before, found.size_after) == (37, 50)
    assert (found.paths_before, found.paths_after) == (5, 4)


def test_several_versions_of_one_package_are_compared_by_the_newest() -> None:
    before = {path("perl-5.38"): 1, path("perl-5.40"): 1}
    assert compare(before, {path("perl-5.38"): 1}).packages[0].kind is Kind.DOWNGRADED
    assert compare(before, {path("perl-5.40"): 1}).packages[0].kind is Kind.CHANGED
    assert compare(before, {path("perl-5.9"): 1, path("perl-5.41"): 1}).packages[0].after == ("5.9", "5.41")


def test_equal_closures_do_not_differ() -> None:
    closure = {path("hello-2.12"): 10}
    found = compare(closure, closure)
    assert (found.packages, found.rebuilt) == ((), 0)


def test_a_reboot_is_needed_for_what_only_booting_changes() -> None:
    booted = {"kernel": "/k1", "initrd": "/i1", "systemd": "/s1"}
    assert needs_reboot(booted, booted) == ()
    assert needs_reboot(booted, {"kernel": "/k2", "initrd": "/i2", "systemd": "/s1"}) == ("kernel", "initrd")
    assert needs_reboot(booted, {"kernel": "/k1", "initrd": "/i1", "systemd": "/s2"}) == ("systemd",)
    assert needs_reboot({}, {"kernel": "/k1"}) == (), "a container boots no kernel"


def test_the_units_of_a_dry_activation_are_read() -> None:
    said = """\
would stop the following units: a.service, b.timer
would NOT stop the following changed units: display-manager.service
would activate the configuration...
would restart systemd
would reload the following units: dbus.service
would restart the following units: nginx.service, sshd.service
would start the following units: c.socket
"""
    assert units(said.splitlines()) == Units(
        stopped=("a.service", "b.timer"),
        restarted=("nginx.service", "sshd.service"),
        reloaded=("dbus.service",),
        started=("c.socket",),
        restarts_systemd=True,
    )


def test_the_units_that_failed_are_read() -> None:
    said = [
        "stopping the following units: a.service",
        "starting the following units: a.service",
        "warning: the following units failed: a.service, web.service",
        "× a.service - the following units failed: no.service",
    ]
    assert units(said) == Units(stopped=("a.service",), started=("a.service",), failed=("a.service", "web.service"))
