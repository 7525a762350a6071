#!/bin/sh
# Makes .venv from the hash-pinned locks. Instant when nothing has changed since.
# Needs Python >= 3.11 and a package index. PYTHON=... names another Python.
set -eu
cd -P "$(dirname "$0")/.."

fail() {
    printf 'make setup: %s\n' "$1" >&2
    exit 1
}

version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

wanted="$(pwd) $(cat requirements/*.lock requirements/setup.sh pyproject.toml | cksum)"
stamp=.venv/.swapproof-setup
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && is_new_enough .venv/bin/python; then
    exit 0
fi

if ! touch .setup-writes 2>/dev/null; then
    fail "cannot write to $(pwd); copy the folder to a place where you may write."
fi
rm -f .setup-writes

python=
found=
for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    if is_new_enough "$name"; then
        python=$name
        break
    fi
    found="$found$(version "$name" | sed "s|^| $name is |; s|\$|,|")"
done
if [ -z "$python" ]; then
    fail "Swapproof needs Python >= 3.11; found:${found:- no Python,} set PYTHON to a newer one."
fi

uv=
if uv --version >/dev/null 2>&1; then
    uv=uv
fi

# Scripts in .venv name its folder: it cannot be moved along with the checkout.
if ! is_new_enough .venv/bin/python || ! grep -qF "$(pwd)/.venv" .venv/bin/activate; then
    rm -rf .venv
    if [ -n "$uv" ]; then
        uv venv --quiet --python "$python" .venv
    elif "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv .venv
    else
        fail "$python lacks the venv module; install it (Debian: python3-venv) or put uv on PATH."
    fi
fi

printf 'Setting up .venv with Python %s; this takes a minute, once.\n' \
    "$(version .venv/bin/python)" >&2
if [ -z "$uv" ]; then
    uv=.venv/bin/uv
    # A uv of our own knows nothing yet of the index and certificates that pip is set up for.
    index=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
    if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
        export UV_DEFAULT_INDEX="$index"
    fi
    if [ -n "${PIP_CERT:-}" ] && [ -z "${SSL_CERT_FILE:-}" ]; then
        export SSL_CERT_FILE="$PIP_CERT"
    fi
    if ! "$uv" --version >/dev/null 2>&1; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
            --only-binary :all: --require-hashes -r requirements/uv.lock
    fi
fi

quiet=--quiet
if [ -t 2 ]; then
    quiet=
fi
# shellcheck disable=SC2086 # empty means no argument
"$uv" pip sync $quiet --python .venv/bin/python --require-hashes \
    requirements/dev.lock requirements/uv.lock
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
printf '%s' "$wanted" >"$stamp"
