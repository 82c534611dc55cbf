#!/usr/bin/env bash
# Makes the README's pictures again: the card of the most important head, and where a run holds checks the distributions of the last check.
#   reports/pictures.sh [profiler [run.duckdb]]     # the command, where it is not on the path; a run, else the demo's is made
# A few minutes with the demo. Needs Chromium.
set -euo pipefail
profiler=${1:-profiler}
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
run=${2:-$work/demo.duckdb}
[ -e "$run" ] || "$profiler" demo --out "$run"
head="$("$profiler" query "$run" component_overview --set kind=head --set top=1 --format csv | sed -n '2s/,.*//p')"
"$profiler" report "$run" component --component "$head" --attention --out "$work/card.html" --png "$here/card.png" --size 1000x1250
if "$profiler" report "$run" generality --out "$work/distributions.html" --png "$work/distributions.png" --size 1000x1180 2>/dev/null; then
  cp "$work/distributions.png" "$here/distributions.png"
fi
