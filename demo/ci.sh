#!/usr/bin/env bash
# demo/ci.sh [N]: starts N servers (3), changes their config, and checks the result by exit code and with jq.
set -euo pipefail
PATH=$PATH:$(dirname "$(realpath "$0")")/../target/debug n=${1:-3} dir=$(mktemp -d) pids=()
trap 'kill "${pids[@]}" || true; rm -rf "$dir"' EXIT
printf 'message = "one"\nlisten = "127.0.0.1:0"\n' >"$dir/web.toml"
printf 'version = 1\n[[group]]\nname = "ci"\nkind = "hello"\ncount = %s\nmatch = { exe = "*", args = ["serve", "%s"] }\n' "$n" "$dir/web.toml" >"$dir/fleet.toml"
for _ in $(seq "$n"); do exec {out}< <(exec hello serve --config "$dir/web.toml") && pids+=($!) && read -r _ <&"$out"; done # the address
run() { code=0; hello "$@" --fleet "$dir/fleet.toml" --state "$dir/state" -o json >"$dir/result.json" || code=$?; }
check() { { [ "$code" = "$1" ] && jq -e "$2" "$dir/result.json"; } || { echo "demo/ci.sh: exit $code, not $1 with $2" >&2; exit 1; }; }
run broadcast --validate --set message=two
check 0 ".verdict == \"converged\" and .counts == {\"confirmed\": $n} and all(.instances[]; .proof == \"exact\")"
run broadcast --validate --set listen=nowhere
check 4 '.verdict == "invalid" and all(.instances[]; .outcome != "confirmed")' # nothing was touched
run status && check 0 '.exit == 0'
