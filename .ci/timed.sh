#!/bin/sh
# timed.sh FILE NAME COMMAND...: runs the command, and notes in FILE how many seconds it took.
set -eu
file=$1
name=$2
shift 2
began=$(date +%s)
status=0
"$@" || status=$?
printf '%-14s %4d s\n' "$name" $(($(date +%s) - began)) >>"$file"
exit "$status"
