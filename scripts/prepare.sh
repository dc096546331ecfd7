# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# Makes a machine ready for ./demo and ./check. To be sourced, then called as `prepare demo` or `prepare check`.
#
# It writes to .venv and .cache in the checkout only. Distribution packages are installed where that is possible without
# a question (Debian, as root or with passwordless sudo) and are named before. Afterwards:
#
#   GLIX_CHECKOUT   the folder of this checkout
#   GLIX_PYTHON     the Python of .venv, or empty where none could be made
#   PATH            in a chroot: finds a nix that works there
#   GLIX_MISSING    words: the distribution packages that are missing and could not be installed
#
# The status is 0 when the virtual environment exists, even if something else is missing; 3 when it does not.

GLIX_CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
GLIX_PYTHON=
GLIX_MISSING=
export GLIX_CHECKOUT GLIX_PYTHON GLIX_MISSING

# prepare demo|check
prepare() {
    case ${1-} in
        demo | check) ;;
        *) _prepare_say "unknown purpose: ${1-}" && return 2 ;;
    esac
    mkdir -p "$GLIX_CHECKOUT/.cache"
    [ -e "$GLIX_CHECKOUT/.cache/.gitignore" ] || echo '*' >"$GLIX_CHECKOUT/.cache/.gitignore"
    # Two runs at once must not build one .venv together. The lock ends with the subshell's descriptor.
    if command -v flock >/dev/null; then
        exec {_prepare_lock}>"$GLIX_CHECKOUT/.cache/prepare.lock"
        flock "$_prepare_lock"
    fi
    local status=0
    _prepare_machine "$1"
    _prepare_nix
    _prepare_venv "$1" || status=3
    [ -z "${_prepare_lock-}" ] || exec {_prepare_lock}>&-
    unset _prepare_lock
    return "$status"
}

# Prints a Python that can run the standard library at least; for a message where no .venv could be made.
prepare_any_python() {
    _prepare_find_python True
}

_prepare_say() {
    printf 'prepare: %s\n' "$*" >&2
}

# --- distribution packages -------------------------------------------------------------------------------------------

# One need per line: the purpose, the kind of probe, what to look for, and the Debian package that brings it.
_prepare_needs() {
    cat <<'END'
demo   command  git          git
demo   command  nix          nix-bin
demo   command  nix-store    nix-bin
demo   command  dbus-daemon  dbus-daemon
demo   command  openssl      openssl
demo   command  ps           procps
demo   command  setpriv      util-linux
demo   command  mount        mount
demo   command  tar          tar
demo   file     /etc/ssl/certs/ca-certificates.crt  ca-certificates
check  command  busctl       systemd
check  command  gdbus        libglib2.0-bin
check  command  gdbus-codegen      libglib2.0-dev-bin
check  command  qdbusxml2cpp       qtbase5-dev-tools
check  command  sdbus-c++-xml2cpp  libsdbus-c++-bin
check  command  xmllint      libxml2-utils
check  file     /usr/lib/polkit-1/polkitd  polkitd
check  command  pkttyagent   polkitd
check  command  unshare      util-linux
check  command  zsh          zsh
check  command  fish         fish
check  command  man          man-db
build  command  cc           gcc
build  file     /usr/include/stdlib.h  libc6-dev
build  command  pkg-config   pkg-config
build  module   libsystemd   libsystemd-dev
system command  cc              gcc
system file     /usr/include/stdlib.h  libc6-dev
machines command  ip           iproute2
machines command  ssh          openssh-client
machines file     /usr/sbin/sshd  openssh-server
booted command  debootstrap     debootstrap
booted command  systemd-nspawn  systemd-container
END
}

# Prints the packages that PURPOSE… need and this machine lacks.
_prepare_lacking() {
    local purpose kind subject package
    while read -r purpose kind subject package; do
        case " $* " in *" $purpose "*) ;; *) continue ;; esac
        case $kind in
            command) command -v "$subject" >/dev/null ;;
            file) [ -e "$subject" ] || ! command -v apt-get >/dev/null ;; # such paths are Debian's
            module) command -v pkg-config >/dev/null && pkg-config --exists "$subject" ;;
        esac || printf '%s\n' "$package"
    done < <(_prepare_needs) | sort -u
}

_prepare_machine() {
    local -a purposes=(demo) lacking
    [ "$1" = demo ] || purposes+=(check)
    [ "$1" = demo ] || [ ! -d "$GLIX_CHECKOUT/tests/system" ] || purposes+=(system)
    [ "$1" = demo ] || [ "$(id -u)" -ne 0 ] || purposes+=(booted machines) # only root can make them
    mapfile -t lacking < <(_prepare_lacking "${purposes[@]}")
    [ "${#lacking[@]}" -eq 0 ] || _prepare_install "${lacking[@]}"
}

# As root, nix puts itself into a mount namespace of its own and its children back into the first one. In a chroot that
# leads them out of it: git, called by nix, finds none of its files. Without the privilege nix leaves out both steps.
_prepare_nix() {
    local programs=$GLIX_CHECKOUT/.cache/chroot name real
    case ":$PATH:" in *":$programs:"*) return ;; esac
    [ "$(id -u)" -eq 0 ] && command -v ischroot >/dev/null && ischroot && command -v nix >/dev/null || return 0
    mkdir -p "$programs"
    for name in nix nix-build nix-env nix-instantiate nix-store; do
        real=$(command -v "$name") || continue
        printf '#!/bin/sh\nexec setpriv --bounding-set=-sys_admin -- %q "$@"\n' "$real" >"$programs/$name"
        chmod +x "$programs/$name"
    done
    _prepare_say "this is a chroot, where nix has to run without the privilege to mount"
    export PATH="$programs:$PATH"
}

# Installs the packages, or adds them to GLIX_MISSING and fails.
_prepare_install() {
    local log=$GLIX_CHECKOUT/.cache/apt.log
    local -a sudo=()
    if ! command -v apt-get >/dev/null; then
        _prepare_miss "$@"
        _prepare_say "missing, and this is no Debian to install it on: $*"
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            _prepare_miss "$@"
            _prepare_say "missing, and installing needs root: apt-get install --no-install-recommends $*"
            return 1
        fi
        sudo=(sudo -n)
    fi
    _prepare_say "installing with apt-get: $*"
    # The package lists may be absent or old, so a failure is answered by fetching them and trying once more.
    # Recommended packages stay out: those of nix-bin would set up a system-wide nix-daemon.
    _prepare_apt_get install -y --no-install-recommends "$@" >"$log" 2>&1 && return
    { _prepare_apt_get update && _prepare_apt_get install -y --no-install-recommends "$@"; } >"$log" 2>&1 && return
    _prepare_miss "$@"
    _prepare_say "apt-get failed; the end of $log:"
    tail -n 15 "$log" >&2
    return 1
}

_prepare_miss() {
    GLIX_MISSING="${GLIX_MISSING:+$GLIX_MISSING }$*"
}

_prepare_apt_get() {
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# --- the virtual environment -----------------------------------------------------------------------------------------

# Prints the first Python that is new enough and for which PROBE holds.
_prepare_find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.14; do
        _prepare_is "$candidate" "$1" && command -v "$candidate" && return
    done
    return 1
}

# Whether PYTHON is new enough and PROBE, a Python expression, holds for it: it has `pip`, it has `headers`.
_prepare_is() {
    command -v "$1" >/dev/null && "$1" -I -c "
import os, sys, sysconfig
from importlib.util import find_spec
pip = bool(find_spec('ensurepip'))
headers = os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h'))
sys.exit(not (sys.version_info >= (3, 11) and ($2)))" 2>/dev/null
}

# The Python to build on: complete if possible, installed where it may be, else one that makes do.
_prepare_base_python() {
    _prepare_find_python 'pip and headers' && return
    _prepare_install python3 python3-venv python3-dev && _prepare_find_python 'pip and headers' && return
    _prepare_find_python pip || _prepare_find_python True
}

# What .venv was made from: the locks of its purpose, less comments, and its place, which is written into its programs.
_prepare_key() {
    local -a locks=(requirements-build.lock requirements.lock)
    [ "$1" = demo ] || locks+=(requirements-dev.lock)
    (cd "$GLIX_CHECKOUT" && echo "$GLIX_CHECKOUT" | cat - "${locks[@]}" | grep -v '^ *#' | sha256sum | cut -d ' ' -f 1)
}

# Whether .venv serves PURPOSE: made from these locks and with a Python that still starts.
_prepare_venv_serves() {
    local stamp=$GLIX_CHECKOUT/.venv/.made-for-$1
    [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$(_prepare_key "$1")" ] && "$GLIX_CHECKOUT/.venv/bin/python" -c ''
}

_prepare_venv() {
    local venv=$GLIX_CHECKOUT/.venv lock base build
    [ "$1" = demo ] && lock=requirements.lock || lock=requirements-dev.lock
    if _prepare_venv_serves check 2>/dev/null || _prepare_venv_serves "$1" 2>/dev/null; then
        if [ ! -e "$venv/.without-systemd" ] || ! _prepare_can_build "$venv/bin/python"; then
            GLIX_PYTHON=$venv/bin/python
            _prepare_programs
            return
        fi
    fi

    base=$(_prepare_base_python) || {
        _prepare_say "no Python 3.11 or newer"
        return 1
    }
    _prepare_can_build "$base" && build=yes || build=
    _prepare_venv_serves demo 2>/dev/null || _prepare_new_venv "$base" || return 1
    rm -f "$venv"/.made-for-* "$venv/.without-systemd"
    _prepare_say "installing into .venv from $lock"
    _prepare_pip requirements-build.lock || return 1
    if [ -n "$build" ]; then
        _prepare_pip "$lock" || return 1
    else
        # Published as source only. Whatever does not touch the journal or the service manager works without.
        _prepare_say "leaving out systemd-python, which has to be compiled"
        awk '/^[a-z]/ { keep = !/^systemd-python/ } keep' "$GLIX_CHECKOUT/$lock" >"$venv/without-systemd.lock"
        _prepare_pip "$venv/without-systemd.lock" || return 1
        touch "$venv/.without-systemd"
    fi
    GLIX_PYTHON=$venv/bin/python
    rm -f "$venv/.programs"
    _prepare_programs
    _prepare_key "$1" >"$venv/.made-for-$1"
}

# Whether PYTHON can compile systemd-python here, after installing what that takes where it may be installed.
_prepare_can_build() {
    local -a lacking
    mapfile -t lacking < <(
        _prepare_lacking build
        _prepare_is "$1" 'headers' || echo python3-dev
    )
    [ "${#lacking[@]}" -eq 0 ] || _prepare_install "${lacking[@]}"
}

_prepare_new_venv() {
    local venv=$GLIX_CHECKOUT/.venv
    _prepare_say "making .venv with $1"
    rm -rf "$venv"
    if "$1" -I -c 'import ensurepip' 2>/dev/null; then
        "$1" -m venv "$venv"
    elif "$1" -m pip --version >/dev/null 2>&1; then
        "$1" -m venv --without-pip "$venv" # a Debian without python3-venv, but with pip: that one installs from outside
    else
        _prepare_say "$1 has neither ensurepip nor pip"
        return 1
    fi
}

# Installs exactly what LOCK lists. Nothing is resolved, and nothing is fetched that the lock has no hash for: builds run
# with the tools of requirements-build.lock instead of fetching their own.
_prepare_pip() {
    local venv=$GLIX_CHECKOUT/.venv log=$GLIX_CHECKOUT/.cache/pip.log
    local -a pip=("$venv/bin/python" -m pip)
    "${pip[@]}" --version >/dev/null 2>&1 || pip=(python3 -m pip --python "$venv/bin/python")
    (cd "$GLIX_CHECKOUT" &&
        env -u PYTHONPATH -u PYTHONHOME PIP_CACHE_DIR="$GLIX_CHECKOUT/.cache/pip" PIP_USER=0 \
            "${pip[@]}" --disable-pip-version-check install --require-hashes --no-deps --no-build-isolation -r "$1" \
            </dev/null >"$log" 2>&1) && return
    _prepare_say "pip failed; the end of $log:"
    tail -n 15 "$log" >&2
    return 1
}

# Makes the checkout importable in .venv and writes the programs of pyproject.toml. An editable installation would do the
# same, but needs a finished package to build. They name their folders themselves, since the module site, which would find
# them, takes a millisecond of every start.
_prepare_programs() {
    local venv=$GLIX_CHECKOUT/.venv
    [ -e "$venv/.programs" ] && [ ! "$GLIX_CHECKOUT/pyproject.toml" -nt "$venv/.programs" ] && return
    "$GLIX_PYTHON" -I - "$GLIX_CHECKOUT" <<'END' && touch "$venv/.programs"
import sys, sysconfig, tomllib
from pathlib import Path

checkout = Path(sys.argv[1])
libraries = sysconfig.get_path("purelib")
Path(libraries, "glixd-checkout.pth").write_text(f"{checkout}\n")
for name, target in tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["scripts"].items():
    module, function = target.split(":")
    program = Path(sysconfig.get_path("scripts"), name)
    program.write_text(
        f"#!{sys.executable} -S\nimport sys\n\nsys.path += [{libraries!r}, {str(checkout)!r}]\n"
        f"from {module} import {function}\n\nsys.exit({function}())\n"
    )
    program.chmod(0o755)
END
}
