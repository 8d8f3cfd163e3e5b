#!/usr/bin/env bash
# Every finding in turn, then a table; exit code 1 where one of them is out of date. PYTHON chooses the interpreter.
set -uo pipefail
cd "$(dirname "$0")"
table=$'\nfinding\tresult\tseconds' failed=0
for script in *.sh; do
  [ "$script" = run_all.sh ] && continue
  echo "== ${script%.sh}"
  began=$SECONDS
  if bash "$script"; then result=pass; else result=FAIL failed=1; fi
  table+=$'\n'"${script%.sh}"$'\t'"$result"$'\t'"$((SECONDS - began))"
done
echo "$table" | expand -t 48,56
exit "$failed"
