#!/bin/sh
# release.sh FOLDER: puts what a release carries into FOLDER: wheels, the source, the bill of materials
# (CycloneDX, with licences, of exactly what the lock installs), the list of licences, checksums.
# RELEASE_TAG=v1.2.3 is refused when the version is another one, and when the last pass of `make verify`
# is older than 100 commits.
set -eu
cd -P "$(dirname "$0")/.."
out=${1:?usage: release.sh FOLDER}
bin=.venv/bin
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ -n "$(ls -A "$out")" ]; then
    echo "release.sh: $out is not empty: name an empty folder" >&2
    exit 1
fi

version=$("$bin/python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
if [ "${RELEASE_TAG:-v$version}" != "v$version" ]; then
    echo "release.sh: the tag is $RELEASE_TAG and pyproject.toml says $version: change one of them" >&2
    exit 1
fi

# Levels of gate and canary, and all stories, are proved by `make verify` alone.
if [ -n "${RELEASE_TAG:-}" ]; then
    "$bin/python" .ci/last_passed.py --within 100 verify
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$bin/python" -m hatchling build -t sdist -d "$out"
sh deploy/wheels.sh "$out"

uv="$bin/uv"
for name in runtime release; do
    "$uv" venv --quiet --python "$bin/python" "$work/$name"
    "$uv" pip install --quiet --python "$work/$name/bin/python" --require-hashes \
        -r "requirements/$name.lock"
done
"$uv" pip install --quiet --python "$work/runtime/bin/python" --no-deps \
    "$out/swapproof-$version"-*.whl "$out/swapproof_try-$version"-*.whl
"$work/release/bin/cyclonedx-py" environment "$work/runtime/bin/python" --pyproject pyproject.toml \
    --output-reproducible --output-file "$out/swapproof.cdx.json"
cp deploy/licences.md "$out/"
(cd "$out" && sha256sum -- * >"$work/SHA256SUMS")
cp "$work/SHA256SUMS" "$out/"
