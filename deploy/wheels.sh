#!/bin/sh
# wheels.sh FOLDER: builds the wheels of this tree into FOLDER. `swapproof` needs `swapproof-try` of
# the same version.
set -eu
cd -P "$(dirname "$0")/.."
mkdir -p "${1:?usage: wheels.sh FOLDER}"
root=$(pwd)
out=$(cd "$1" && pwd)
for project in . distributions/try clients/python; do
    (cd "$project" && "$root/.venv/bin/python" -m hatchling build -t wheel -d "$out")
done
