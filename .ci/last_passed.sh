#!/bin/sh
# Without an argument: prints when each of the long runs last passed.
# last_passed.sh NAME: notes in .ci/last_passed that the run of this name passed just now.
set -eu
cd "$(dirname "$0")"
record=last_passed

if [ $# -eq 1 ]; then
    # Of a changed checkout the commit says too little.
    changed=$(git status --porcelain --untracked-files=no -- ':(top,exclude).ci/last_passed')
    commit=$(git rev-parse --short HEAD)${changed:+-changed}
    { grep -v "^$1 " "$record"; echo "$1 $commit $(date -u +%Y-%m-%d)"; } | sort >"$record.new"
    mv "$record.new" "$record"
    exit 0
fi

while read -r name commit day; do
    if [ "$commit" = never ]; then
        echo "make $name: not noted yet"
        continue
    fi
    since=$(git rev-list --count "${commit%-changed}..HEAD" 2>/dev/null) || since="an unknown number of"
    echo "make $name: last passed at $commit on $day, $since commits ago"
done <"$record"
