# SPDX-License-Identifier: GPL-3.0-or-later
"""Flake references: what is understood, what is refused, pins and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glixd.errors import GlixError, InvalidRequest
from glixd.model.flakeref import FlakeRef, Local, Scheme
from glixd.protocol import ErrorCode

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
HASH = "sha256-" + "A" * 43 + "="

GOOD: list[tuple[str, Scheme, str, str | None, str]] = [
    ("github:owner/repo", Scheme.GITHUB, "github:owner/repo", None, "repo"),
    ("github:owner/repo/v1.0", Scheme.GITHUB, "github:owner/repo/v1.0", None, "repo"),
    ("github:owner/repo/feature/x", Scheme.GITHUB, "github:owner/repo/feature/x", None, "repo"),
    (f"github:owner/repo/{COMMIT}", Scheme.GITHUB, f"github:owner/repo/{COMMIT}", None, "repo"),
    ("github:owner/repo?dir=a/sub", Scheme.GITHUB, "github:owner/repo?dir=a/sub", None, "sub"),
    ("github:o/r?host=ghe.example.org", Scheme.GITHUB, "github:o/r?host=ghe.example.org", None, "r"),
    ("github:o/r.git", Scheme.GITHUB, "github:o/r.git", None, "r"),
    ("github:o/r#tool", Scheme.GITHUB, "github:o/r", "tool", "tool"),
    ("github:o/r#default", Scheme.GITHUB, "github:o/r", "default", "r"),
    (
        "github:o/r?dir=sub#packages.x86_64-linux.default",
        Scheme.GITHUB,
        "github:o/r?dir=sub",
        "packages.x86_64-linux.default",
        "sub",
    ),
    ("github:o/r?ref=feature%2Fx", Scheme.GITHUB, "github:o/r?ref=feature%2Fx", None, "r"),
    ("gitlab:group%2Fsub/project", Scheme.GITLAB, "gitlab:group%2Fsub/project", None, "project"),
    ("sourcehut:~user/project", Scheme.SOURCEHUT, "sourcehut:~user/project", None, "project"),
    ("git+https://example.org/a/tool.git", Scheme.GIT_HTTPS, "git+https://example.org/a/tool.git", None, "tool"),
    (
        "git+https://example.org:8443/~u/t?ref=v1+b",
        Scheme.GIT_HTTPS,
        "git+https://example.org:8443/~u/t?ref=v1+b",
        None,
        "t",
    ),
    (f"git+https://h/t?ref=main&rev={COMMIT}", Scheme.GIT_HTTPS, f"git+https://h/t?ref=main&rev={COMMIT}", None, "t"),
    ("git+https://h/t?submodules=1&shallow=0", Scheme.GIT_HTTPS, "git+https://h/t?submodules=1&shallow=0", None, "t"),
    ("git+http://host.lan/t", Scheme.GIT_HTTP, "git+http://host.lan/t", None, "t"),
    ("git://host/t.git", Scheme.GIT, "git://host/t.git", None, "t"),
    ("git+ssh://git@example.org:22/me/t.git", Scheme.GIT_SSH, "git+ssh://git@example.org:22/me/t.git", None, "t"),
    ("git+file:///home/me/flake", Scheme.GIT_FILE, "git+file:///home/me/flake", None, "flake"),
    ("https://example.org/tool-1.0.tar.gz", Scheme.HTTPS, "https://example.org/tool-1.0.tar.gz", None, "tool-1.0"),
    (f"https://h/t.tgz?narHash={HASH}", Scheme.HTTPS, f"https://h/t.tgz?narHash={HASH}", None, "t"),
    (
        "https://github.com/o/r/archive/main.tar.gz",
        Scheme.HTTPS,
        "https://github.com/o/r/archive/main.tar.gz",
        None,
        "r",
    ),
    ("https://h/g/p/-/archive/v1/p-v1.tar.gz", Scheme.HTTPS, "https://h/g/p/-/archive/v1/p-v1.tar.gz", None, "p"),
    ("https://h/f/NixOS/nixpkgs/*.tar.gz", Scheme.HTTPS, "https://h/f/NixOS/nixpkgs/*.tar.gz", None, "nixpkgs"),
    ("http://h/t.zip", Scheme.HTTP, "http://h/t.zip", None, "t"),
    ("path:./x", Scheme.PATH, "path:./x", None, "x"),
    ("path:./pkgs/greeting/", Scheme.PATH, "path:./pkgs/greeting/", None, "greeting"),
    ("path:/srv/flakes/x", Scheme.PATH, "path:/srv/flakes/x", None, "x"),
    ("nixpkgs#firefox", Scheme.FLAKE, "flake:nixpkgs", "firefox", "firefox"),
    ("nixpkgs#python3Packages.requests", Scheme.FLAKE, "flake:nixpkgs", "python3Packages.requests", "requests"),
    ("nixpkgs#_1password", Scheme.FLAKE, "flake:nixpkgs", "_1password", "_1password"),
    ("nixpkgs/nixos-24.05#hello", Scheme.FLAKE, "flake:nixpkgs/nixos-24.05", "hello", "hello"),
    ("flake:home-manager", Scheme.FLAKE, "flake:home-manager", None, "home-manager"),
    ("templates?dir=rust", Scheme.FLAKE, "flake:templates?dir=rust", None, "rust"),
]


@pytest.mark.parametrize(("text", "scheme", "url", "attribute", "name"), GOOD)
def test_a_reference_is_taken_apart(text: str, scheme: Scheme, url: str, attribute: str | None, name: str) -> None:
    reference = FlakeRef.parse(text)
    assert (reference.text, reference.scheme, reference.url, reference.attribute) == (text, scheme, url, attribute)
    assert reference.infer_name() == name
    assert reference.pinned(None) == url
    assert FlakeRef.parse(url).url == url


BAD = [
    "",
    "-github:o/r",
    "--help",
    "github:o/r ",
    " github:o/r",
    "github:o/r\n",
    "github:o/r\x00",
    "github:o/\x1b[31mr",
    "github:o/é",
    "github:o/r\u202e",
    "github:o/\ud800",
    'github:o/"r"',
    "github:o/'r'",
    "github:o/${x}",
    "github:o/$x",
    "github:o\\r",
    "github:o/r;id",
    "github:o/r`id`",
    "github:o/r|x",
    "github:o/r<x>",
    "github:o/r(x)",
    "github:o/r!",
    "github:o/" + "r" * 512,
    "github:o/r#a#b",
    "github:o/r#",
    "github:o/r#.a",
    "github:o/r#a..b",
    "github:o/r#a.",
    'github:o/r#"a.b"',
    "github:o/r#a^out",
    "github:o/r^*",
    "github:o/r#-a",
    "github:o/r#a?b",
    "#firefox",
    "github:",
    "github:o",
    "github:o/",
    "github:/r",
    "github:o/r/",
    "github:o//r",
    "github:-o/r",
    "github:o/-r",
    "github:o/r/-x",
    "github:~o/r",
    "github:o%2Fp/r",
    "github:a/b/x/../y",
    "github:a/b/x/%2e%2e/y",
    "github:a/b/x/.%2E/y",
    "github:a/b/x%2F..%2Fy",
    "github:a/b/x/%252e%252e/y",
    "github:../../r",
    "github:a/..",
    "github:a/b/x..y",
    "github:a/b/x.lock",
    "github:a/b%",
    "github:a/b%zz",
    "github:a/b%00",
    "github:a/b%0a",
    "github:a/b%20c",
    "github:a/b%23c",
    "github:a/b%3fref=x",
    "github:a/b?ref=--help",
    "github:a/b?ref=",
    "github:a/b?ref",
    "github:a/b?",
    "github:a/b?ref=x&ref=y",
    "github:a/b?ref=x&",
    "github:a/b?foo=1",
    "github:a/b?rev=abc",
    f"github:a/b?rev={COMMIT}0",
    f"github:a/b?ref=main&rev={COMMIT}",
    f"github:a/b/main?rev={COMMIT}",
    "github:a/b/main?ref=main",
    "github:a/b?dir=../x",
    "github:a/b?dir=/x",
    "github:a/b?dir=x/../../y",
    "github:a/b?dir=%2e%2e",
    "github:a/b?dir=./x",
    "github:a/b?host=-oProxyCommand=x",
    "github:a/b?host=a..b",
    "github:a/b?submodules=1",
    "GitHub:a/b",
    "srht:~u/p",
    "hg+https://h/x",
    "file:///etc/passwd",
    "javascript:alert",
    "tarball+https://h/x.tgz",
    "git+https:/h/x",
    "git+https://h",
    "git+https://h/",
    "git+https:///x",
    "git+https://h//x",
    "git+https://h/a/../b",
    "git+https://h/a/./b",
    "git+https://-h/x",
    "git+https://user@h/x",
    "git+https://h/x?submodules=yes",
    "git+https://h/x?ref=-x",
    "git+https://h:port/x",
    "git+ssh://-oProxyCommand=x/y",
    "git+ssh://git:secret@h/x",
    "git+ssh://-x@h/y",
    "git+ssh://a@b@h/y",
    "https://user:secret@h/x.tgz",
    "https://h/x.tgz?token=1",
    "https://h/x.tgz?narHash=sha256-x",
    "git+file:/x",
    "git+file://h/x",
    "git+file:///",
    "git+file:./x",
    "path:",
    "path:.",
    "path:./",
    "path:/",
    "path:x",
    "path:~/x",
    "path:../x",
    "path:./../x",
    "path:./a/../b",
    "path:./a//b",
    "path:./%2e%2e/x",
    "path:./a%20b",
    "path:./x?rev=" + COMMIT,
    "path:./x?dir=y",
    "path:./a:b",
    "./x",
    "/x",
    "~/x",
    "..",
    "python3Packages.requests",
    "7zip",
    "nixpkgs/",
    "nixpkgs/a/b",
    "nixpkgs/-x#y",
    "nixpkgs?ref=x#y",
    f"nixpkgs/nixos-24.05/{COMMIT}",
    "indirect:nixpkgs",
    "flake:",
]


@pytest.mark.parametrize("text", BAD)
def test_a_bad_reference_is_refused_with_its_reason(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        FlakeRef.parse(text)
    error = caught.value
    assert error.code is ErrorCode.BAD_REFERENCE
    assert error.details["reason"]
    assert error.message.isprintable()
    assert len(error.message) < 400
    assert "secret" not in error.message + error.hint + str(error.details)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("github:o/r é", "a space at position 11"),
        ("github:o/r\n", "U+000A at position 11"),
        ("github:o/r#a#b", "second is at position 13"),
        ("github:a/b?foo=1", "“foo” is no parameter of “github:”; known are ref, rev, dir, host"),
        ("github:a/b?rev=abc", "“abc” is no value for the parameter “rev”"),
        ("github:a/b#c^out", "outputs can't be chosen"),
        ("ftp://h/x", "“ftp:” is no kind of source"),
    ],
)
def test_a_refusal_says_what_and_where(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        FlakeRef.parse(text)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "text", ["firefox", "python3Packages.requests", "7zip", "_1password", "gtk+", "nixpkgs", "a-b.c_d"]
)
def test_a_bare_name_is_short(text: str) -> None:
    assert FlakeRef.is_short(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-x",
        "a b",
        "a\n",
        "a.",
        ".a",
        "a..b",
        "nixpkgs#a",
        "a/b",
        "github:a/b",
        "./x",
        "é",
        "a'",
        "a?b=c",
        "a" * 513,
    ],
)
def test_anything_else_is_not_short(text: str) -> None:
    assert not FlakeRef.is_short(text)


@pytest.mark.parametrize(
    ("text", "pin", "url"),
    [
        ("github:o/r", "v1", "github:o/r?ref=v1"),
        ("github:o/r", COMMIT, f"github:o/r?rev={COMMIT}"),
        ("github:o/r", COMMIT.upper(), f"github:o/r?rev={COMMIT}"),
        ("github:o/r?dir=x", "v1", "github:o/r?dir=x&ref=v1"),
        ("github:o/r?ref=main&dir=x", COMMIT, f"github:o/r?dir=x&rev={COMMIT}"),
        ("github:o/r/v1", COMMIT, f"github:o/r?rev={COMMIT}"),
        ("github:o/r/v1", "v1", "github:o/r/v1"),
        ("github:o/r?ref=v1", "v1", "github:o/r?ref=v1"),
        (f"github:o/r/{COMMIT}", COMMIT, f"github:o/r/{COMMIT}"),
        ("github:o/r#tool", "v1", "github:o/r?ref=v1"),
        ("gitlab:g%2Fs/p", "release/1", "gitlab:g%2Fs/p?ref=release/1"),
        ("sourcehut:~u/p", "v1", "sourcehut:~u/p?ref=v1"),
        ("git+https://h/t", "v1+build", "git+https://h/t?ref=v1+build"),
        ("git+https://h/t?ref=dev", COMMIT, f"git+https://h/t?ref=dev&rev={COMMIT}"),
        ("git+ssh://git@h/t", COMMIT, f"git+ssh://git@h/t?rev={COMMIT}"),
        ("git+file:///srv/t", "main", "git+file:///srv/t?ref=main"),
        ("flake:home-manager", "release-24.05", "flake:home-manager/release-24.05"),
        ("templates?dir=x", COMMIT, f"flake:templates/{COMMIT}?dir=x"),
        ("nixpkgs#firefox", "nixos-24.05", "github:NixOS/nixpkgs/nixos-24.05"),
        ("nixpkgs/nixos-24.05#firefox", COMMIT, f"github:NixOS/nixpkgs/{COMMIT}"),
    ],
)
def test_a_pin_is_merged_into_the_url(text: str, pin: str, url: str) -> None:
    assert FlakeRef.parse(text).input_url(pin) == url
    FlakeRef.parse(url)


@pytest.mark.parametrize(
    ("text", "pin"),
    [
        ("path:./x", "v1"),
        ("path:/x", COMMIT),
        ("https://h/x.tgz", "v1"),
        ("http://h/x.tgz", COMMIT),
        ("github:o/r/v1", "v2"),
        ("github:o/r?ref=v1", "v2"),
        (f"github:o/r/{COMMIT}", "v1"),
        (f"github:o/r?rev={COMMIT}", OTHER),
        (f"git+https://h/t?rev={COMMIT}", "v1"),
        ("nixpkgs/nixos-24.05#x", "nixos-23.11"),
        ("github:o/r", ""),
        ("github:o/r", "-x"),
        ("github:o/r", "--upload-pack=x"),
        ("github:o/r", "a b"),
        ("github:o/r", "a\n"),
        ("github:o/r", "a&rev=b"),
        ("github:o/r", "a..b"),
        ("github:o/r", "a/../b"),
        ("github:o/r", "${x}"),
        ("github:o/r", "x" * 513),
        ("git+https://h/t", "@{1}"),
        ("flake:templates", "a/b"),
    ],
)
def test_a_pin_that_can_not_hold_is_refused(text: str, pin: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        FlakeRef.parse(text).input_url(pin)
    assert caught.value.code is ErrorCode.BAD_REFERENCE


@pytest.mark.parametrize("text", ["github:o/.dotfiles", "https://h/*", "git+https://h/~user", "sourcehut:~u/.x"])
def test_a_reference_without_a_usable_name_asks_for_one(text: str) -> None:
    with pytest.raises(GlixError) as caught:
        FlakeRef.parse(text).infer_name()
    assert caught.value.code is ErrorCode.BAD_REFERENCE
    assert "--name" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "nixpkgs", "pin", "expected"),
    [
        ("nixpkgs#firefox", None, None, True),
        ("nixpkgs#firefox", "git+file:///srv/nixpkgs", None, True),
        ("flake:nixpkgs#firefox", None, None, True),
        ("nixpkgs#firefox", None, "nixos-24.05", False),
        ("nixpkgs/nixos-24.05#firefox", None, None, False),
        ("nixpkgs", None, None, False),
        ("home-manager#x", None, None, False),
        ("github:NixOS/nixpkgs#firefox", "github:NixOS/nixpkgs/nixos-unstable", None, True),
        ("github:nixos/nixpkgs#firefox", "github:NixOS/nixpkgs?ref=nixos-24.05", None, True),
        ("github:NixOS/nixpkgs#firefox", "nixpkgs", None, True),
        ("github:NixOS/nixpkgs#firefox", None, None, False),
        ("github:NixOS/nixpkgs#firefox", "github:me/nixpkgs", None, False),
        ("github:NixOS/nixpkgs#firefox", "github:NixOS/nixpkgs?host=ghe.example.org", None, False),
        ("github:NixOS/nixpkgs#firefox", 'a "broken" url', None, False),
        ("github:NixOS/nixpkgs#firefox", "github:NixOS/nixpkgs", COMMIT, False),
        ("github:NixOS/nixpkgs/nixos-24.05#firefox", "github:NixOS/nixpkgs", None, False),
        ("github:NixOS/nixpkgs?dir=x#firefox", "github:NixOS/nixpkgs", None, False),
        ("github:NixOS/nixpkgs", "github:NixOS/nixpkgs", None, False),
        ("github:me/nixpkgs#firefox", "github:me/nixpkgs", None, False),
    ],
)
def test_the_hosts_own_attributes_are_recognised(
    text: str, nixpkgs: str | None, pin: str | None, expected: bool
) -> None:
    assert FlakeRef.parse(text).is_host_attribute(nixpkgs, pin) is expected


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("path:./x", Local.RELATIVE),
        ("path:/x", Local.ABSOLUTE),
        ("git+file:///x", Local.ABSOLUTE),
        ("git+https://h/x", None),
        ("github:o/r", None),
        ("nixpkgs#x", None),
    ],
)
def test_local_references_are_told_apart(text: str, local: Local | None) -> None:
    assert FlakeRef.parse(text).local is local


PIECES = st.sampled_from(
    [
        "github:",
        "git+https://",
        "path:",
        "./",
        "/",
        "..",
        ".",
        "%2e",
        "%2F",
        "#",
        "?",
        "&",
        "ref=",
        "rev=",
        "dir=",
        "a",
        "b-c",
        "~",
        "@",
        ":",
        "-",
        COMMIT,
    ]
)


@given(st.lists(PIECES, max_size=10).map("".join) | st.text(max_size=40))
def test_whatever_is_accepted_is_harmless(text: str) -> None:
    reference = _outcome(text)
    if isinstance(reference, InvalidRequest):
        assert reference.code is ErrorCode.BAD_REFERENCE
        return
    assert reference.text == text
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(" \"'\\$`;|<>()!{}^")
    assert not text.startswith("-")
    decoded = text.lower().replace("%2e", ".").replace("%2f", "/")
    assert ".." not in decoded.replace("?", "/").replace("=", "/").split("/")
    assert "#" not in reference.url


def _outcome(text: str) -> FlakeRef | InvalidRequest:
    try:
        return FlakeRef.parse(text)
    except InvalidRequest as error:
        return error


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}x", fullmatch=True))
def test_the_name_of_a_repository_or_folder_is_found(name: str) -> None:
    for text in (f"github:o/{name}", f"git+https://h/a/{name}.git", f"path:./{name}", f"git+ssh://git@h/{name}"):
        assert FlakeRef.parse(text).infer_name() == name


def test_what_may_be_a_token_is_never_told_back() -> None:
    with pytest.raises(InvalidRequest) as refused:
        FlakeRef.parse("github:owner/repo?token=secret&ref=main")
    told = f"{refused.value.message} {refused.value.details}"
    assert "secret" not in told
    assert "?token=…&ref=main" in told
