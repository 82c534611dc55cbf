#!/usr/bin/env bash
# Makes the README's picture again: the demo, the most important head's card, a picture of it. A few minutes.
#   reports/pictures.sh [profiler]        # the command, where it is not on the path
set -euo pipefail
profiler=${1:-profiler}
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
"$profiler" demo --out "$work/demo.duckdb"
head="$("$profiler" query "$work/demo.duckdb" component_overview --set kind=head --set top=1 --format csv | sed -n '2s/,.*//p')"
"$profiler" report "$work/demo.duckdb" component --component "$head" --attention --out "$work/card.html" \
  --png "$here/card.png" --size 1000x1250
