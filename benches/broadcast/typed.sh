#!/usr/bin/env bash
# What one types to reload a fleet and to see that all of it serves the new config.
#   typed.sh curl|xargs HELLO NEW LIVE NAME URLS
set -euo pipefail
how=$1 hello=$2 new=$3 live=$4 name=$5 urls=$6
limit=$((SECONDS + 300))
says='%header{x-config-sha256} %{url_effective}\n'
case $how in
  curl) ask() { sed 's/.*/url = "&"\noutput = "\/dev\/null"/' | curl -sZ --parallel-immediate --parallel-max 100 -w "$says" -K -; } ;;
  xargs) ask() { xargs -P16 -n1 curl -s -o /dev/null -w "$says"; } ;;
esac
"$hello" check "$new"
# Does every instance answer?
[ "$(ask <"$urls" | grep -c '^[0-9a-f]')" = "$(wc -l <"$urls")" ]
sha=$(sha256sum <"$new")
mv "$new" "$live"
pkill -HUP -x "$name"
left=$(<"$urls")
while [ -n "$left" ]; do
  [ $SECONDS -lt $limit ]
  left=$(ask <<<"$left" | awk -v sha="${sha%% *}" '$1 != sha { print $2 }')
done
