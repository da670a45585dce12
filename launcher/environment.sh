#!/usr/bin/env bash
# Creates the locked Python environment in .venv, then runs the launcher in it:
#
#     launcher/environment.sh local run MODELS=svm      # what `make run` needs
#     launcher/environment.sh dev test                  # with ruff, mypy and pytest
#
# Shell, because it must run before there is an environment; everything else is Python. It needs bash, coreutils and, for
# uv, any Python with pip; on Debian and Ubuntu as root it installs missing packages (NO_INSTALL=1 forbids that).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
groups=$1
shift
cd "$root"

oldest_uv="0.9"
newest_python="3.12"
other_python="3.11"
stamp=.venv/.made-from
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
    "$@" &
    child=$!
    wait "$child" || code=$?
    child=
    return "$code"
}

installing_is_forbidden() { case "${NO_INSTALL:-}" in 1 | true | yes | on) true ;; *) false ;; esac }
is_debian() { [[ -r /etc/os-release ]] && grep -qiE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release && command -v apt-get >/dev/null; }

debian_install() {
    print "· Environment     installing $* (Debian packages)"
    mkdir -p .cache
    {
        # an unreachable third-party source is no reason to fail; the installation needs Debian's only
        watched apt-get update -q -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 || true
        dpkg --configure -a &&
            DEBIAN_FRONTEND=noninteractive watched apt-get install -q -y --no-install-recommends "$@"
    } >>"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        fail "apt-get could not install $*" "The full log: $root/$log"
    }
}

# install Debian packages where that is possible and allowed, else print the command
require_packages() {
    local why=$1
    shift
    if is_debian && [[ $(id -u) == 0 ]] && ! installing_is_forbidden; then
        debian_install "$@"
    elif is_debian; then
        fail "$why" "Install it with: sudo apt-get install $*" \
            "(as root and without NO_INSTALL=1 the launcher installs it)"
    else
        fail "$why" "Install Python $newest_python with pip and venv, or uv (https://docs.astral.sh/uv/), and try again."
    fi
}

# A pyenv shim exists for inactive versions and fails when run: only an interpreter that runs counts.
is_python() { [[ -x $1 ]] && [[ $("$1" -c 'import sys, ssl, sqlite3, zlib; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$2" ]]; }

find_python() {
    local version=$1 candidate
    while IFS= read -r candidate; do
        if is_python "$candidate" "$version"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done < <(
        type -ap "python$version" || true
        printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python"$version" \
            "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-"$version".*/bin/python"$version" \
            /usr/bin/python"$version" /usr/local/bin/python"$version" /opt/homebrew/bin/python"$version"
        type -ap python3 || true
    )
    return 1
}

is_recent_uv() {
    local found
    found=$("$1" --version 2>/dev/null | awk '{ print $2 }') || return 1
    [[ -n $found && $(printf '%s\n%s\n' "$oldest_uv" "$found" | sort -V | head -n 1) == "$oldest_uv" ]]
}

find_uv() {
    local candidate
    while IFS= read -r candidate; do
        if [[ -x $candidate ]] && is_recent_uv "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done < <(type -ap uv || true; printf '%s\n' "$root/.uv/bin/uv" "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv")
    return 1
}

any_python() {
    local version
    for version in "$newest_python" "$other_python" 3.13 3.10 3.9; do find_python "$version" && return 0; done
    return 1
}

install_uv() {
    local python
    if ! python=$(any_python); then
        require_packages "there is no Python on this machine" python3 python3-venv
        python=$(any_python) || fail "the Python just installed does not run"
    fi
    # Debian has ensurepip, which `python -m venv` needs, in a separate package
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        require_packages "$python cannot create virtual environments (ensurepip is missing)" python3-venv
    print "· Environment     installing uv, which installs the rest"
    mkdir -p .cache
    { watched "$python" -m venv --clear .uv && watched .uv/bin/python -m pip install -q "uv>=$oldest_uv,<1"; } >>"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "uv could not be installed with pip" "The full log: $root/$log" \
            "Check that the Python package index is reachable, or install uv yourself: https://docs.astral.sh/uv/"
    }
}

sync() {
    local uv python started=$SECONDS options=(--frozen)
    [[ $groups == dev ]] && options+=(--group dev)
    find_uv >/dev/null || install_uv
    uv=$(find_uv)
    if ! python=$(find_python "$newest_python"); then
        # uv's builds of CPython come from GitHub: a short timeout, as not every machine has access
        if ! installing_is_forbidden && UV_HTTP_TIMEOUT=10 watched timeout 120 "$uv" python install -q "$newest_python" >/dev/null 2>&1; then
            python=$(find_python "$newest_python" || true)
        fi
        [[ -n ${python:-} ]] || python=$(find_python "$other_python") ||
            require_packages "there is neither Python $newest_python nor $other_python on this machine" python3 python3-venv
        [[ -n ${python:-} ]] || python=$(find_python "$other_python") ||
            fail "Debian's Python is not $other_python" "Install Python $newest_python (for instance with \`uv python install $newest_python\`)."
    fi
    print "· Environment     installing the locked packages into .venv (the first time takes a minute or two)"
    mkdir -p .cache
    # UV_SYSTEM_CERTS: trust the certificates of this machine, which matters behind a TLS-inspecting proxy
    if ! UV_PROJECT_ENVIRONMENT=$root/.venv UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1} UV_LINK_MODE=${UV_LINK_MODE:-copy} VIRTUAL_ENV='' \
        watched "$uv" sync "${options[@]}" --no-progress --compile-bytecode --python "$python" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        fail "uv could not install the locked packages" "The full log: $root/$log"
    fi
    printf '%s %s\n' "$wanted" "$groups" >"$stamp"
    print "✓ Environment     $(.venv/bin/python --version), packages as locked ($((SECONDS - started)) s)"
}

# an environment for development keeps its tools
[[ $groups == dev || ! -x .venv/bin/pytest ]] || groups=dev
wanted=$(cat pyproject.toml uv.lock | cksum | tr ' ' '-')
is_current() { [[ -x .venv/bin/python && $(cat "$stamp" 2>/dev/null || true) == "$wanted $groups" ]]; }
if ! is_current; then
    if command -v flock >/dev/null; then
        # two commands at once must not both install into .venv
        mkdir -p .cache
        exec 9>.cache/environment.lock
        flock 9
    fi
    is_current || sync
    exec 9>&-
fi

(($#)) || exit 0
trap - INT TERM HUP
exec .venv/bin/python -m launcher "$@"
