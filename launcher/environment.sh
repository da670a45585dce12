#!/usr/bin/env bash
# Creates the locked Python environment in .venv, then runs the launcher in it:
#
#     launcher/environment.sh local run MODELS=svm      # what `make run` needs
#     launcher/environment.sh dev test                  # with ruff, mypy and pytest
#
# Shell, because it must run before there is an environment; everything else is Python, and uv does the work. `uv run`
# would stay between make and the launcher, and signals to make alone could not be detected. It needs bash, coreutils and,
# for uv, any Python with pip; on Debian and Ubuntu as root it installs missing packages (NO_INSTALL=1 forbids that).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
groups=$1
shift
cd "$root"
oldest_uv="0.9"
log=.cache/environment.log

print() { printf '%s\n' "$*" >&2; }
fail() {
    print "✗ Environment     $1"
    shift
    (($#)) && printf '  %s\n' "$@" >&2
    exit 69
}

# Long steps run in the background, and this shell waits for them: during a command it would not receive SIGTERM.
child=
stop() {
    trap - INT TERM HUP
    [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true
    print "✗ Environment     stopped"
    exit 130
}
trap stop INT TERM HUP
watched() {
    local code=0
    "$@" >>"$log" 2>&1 </dev/null &
    child=$!
    wait "$child" || code=$?
    child=
    return "$code"
}

may_install() { case "${NO_INSTALL:-}" in 1 | true | yes | on) false ;; *) true ;; esac }

# install Debian packages where that is possible and allowed, else print the command
require_packages() {
    local why=$1
    shift
    grep -qiE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release 2>/dev/null && command -v apt-get >/dev/null ||
        fail "$why" "Install Python 3.12 with pip and venv, or uv (https://docs.astral.sh/uv/), and try again."
    [[ $(id -u) == 0 ]] && may_install || fail "$why" "Install it with: sudo apt-get install $*" \
        "(as root and without NO_INSTALL=1 the launcher installs it)"
    print "· Environment     $why: installing $* (Debian packages)"
    # an unreachable third-party source is no reason to fail; the installation needs Debian's only
    watched apt-get update -q -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 || true
    watched dpkg --configure -a &&
        DEBIAN_FRONTEND=noninteractive watched apt-get install -q -y --no-install-recommends "$@" || {
        tail -n 20 "$log" >&2
        fail "apt-get could not install $*" "The full log: $root/$log"
    }
}

find_uv() {
    local version
    for uv in "$(command -v uv)" .uv/bin/uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do
        version=$([[ -z $uv ]] || "$uv" --version 2>/dev/null | awk '{ print $2 }') || true
        [[ -z $version || $(printf '%s\n' "$oldest_uv" "$version" | sort -V | head -n 1) != "$oldest_uv" ]] || return 0
    done
    return 1
}

install_uv() {
    local python
    any_python() {
        for python in python3.12 python3.11 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3; do
            "$python" -c 'import ssl, sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && return 0
        done
        return 1
    }
    any_python || { require_packages "there is no Python on this machine" python3 python3-venv && any_python; } ||
        fail "the Python just installed does not run"
    # Debian has ensurepip, which `python -m venv` needs, in a separate package
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        require_packages "$python cannot create virtual environments (ensurepip is missing)" python3-venv
    print "· Environment     installing uv, which installs the rest"
    watched "$python" -m venv --clear .uv && watched .uv/bin/python -m pip install -q "uv>=$oldest_uv,<1" || {
        tail -n 20 "$log" >&2
        fail "uv could not be installed with pip" "The full log: $root/$log" \
            "Check that the Python package index is reachable, or install uv yourself: https://docs.astral.sh/uv/"
    }
    find_uv
}

# PATH has only pyenv's shims, of which those of inactive versions do not run
find_python() {
    python=$(PATH="$PATH:$(printf '%s:' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin)" \
        "$uv" python find --system "$1" 2>>"$log")
}
# uv's builds of CPython come from GitHub: a short timeout, as not every machine has access
download_python() { may_install && UV_HTTP_TIMEOUT=10 watched timeout 120 "$uv" python install -q "$1"; }

sync() {
    local uv python started=$SECONDS options=(--frozen --no-progress --compile-bytecode)
    [[ $groups == dev ]] && options+=(--group dev)
    : >"$log"
    find_uv || install_uv
    find_python 3.12 || { download_python 3.12 && find_python 3.12; } || find_python 3.11 || {
        local none="there is neither Python 3.12 nor 3.11 on this machine (python3 is $(python3 --version 2>/dev/null || echo missing))"
        require_packages "$none" python3 python3-venv
        find_python 3.11 || fail "$none" "Install Python 3.12, for instance with:  $uv python install 3.12"
    }
    print "· Environment     installing the locked packages into .venv (the first time takes a minute or two)"
    # UV_SYSTEM_CERTS: trust the certificates of this machine, which matters behind a TLS-inspecting proxy
    UV_PROJECT_ENVIRONMENT=$root/.venv UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1} UV_LINK_MODE=${UV_LINK_MODE:-copy} VIRTUAL_ENV='' \
        watched "$uv" sync "${options[@]}" --python "$python" || {
        tail -n 40 "$log" >&2
        fail "uv could not install the locked packages" "The full log: $root/$log" \
            "Check the network and the free space of the disk (df -h $root), and try again."
    }
    printf '%s\n' "$wanted" >.venv/.made-from
    print "✓ Environment     $(.venv/bin/python --version), packages as locked ($((SECONDS - started)) s)"
}

# an environment for development keeps its tools
[[ $groups == dev || ! -x .venv/bin/pytest ]] || groups=dev
wanted="$(cat pyproject.toml uv.lock | cksum | tr ' ' '-') $groups"
is_current() { [[ -x .venv/bin/python && $(cat .venv/.made-from 2>/dev/null || true) == "$wanted" ]]; }
if ! is_current; then
    mkdir -p .cache
    # two commands at once must not both install into .venv
    exec 9>.cache/environment.lock
    ! command -v flock >/dev/null || flock 9
    is_current || sync
    exec 9>&-
fi

(($#)) || exit 0
trap - INT TERM HUP
exec .venv/bin/python -m launcher "$@"
