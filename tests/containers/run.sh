#!/usr/bin/env bash
# Builds the image, runs a founder and two peers in containers until all three have sealed rounds together, looks at the
# founder's page as a browser on this machine would, and stops them.
#
# Needs a Docker engine and Compose (1.29 or 2), and curl. BASE_IMAGE, TORCH_INDEX and TORCH_BUILD are passed on to the
# build; STATUS_PORT (8080) is where the page is published; DEADLINE_S (900) bounds the wait.
set -euo pipefail
cd "$(dirname "$0")/../.."

project=shoal-check-$$
export STATUS_PORT=${STATUS_PORT:-8080} SHOAL_TOKEN=a-token-for-the-check-$$
page=http://127.0.0.1:$STATUS_PORT
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(--project-name "$project" --file docker-compose.yml)

finish() {
    status=$?
    if [ "$status" != 0 ]; then "${compose[@]}" logs --tail 60 || true; fi
    "${compose[@]}" down --volumes --timeout 60
    exit "$status"
}
trap finish EXIT

fail() {
    echo "$*" >&2
    exit 1
}

# Prints how far the swarm is, as the founder sees it. Fails until three peers have three rounds each and once
# sealed one by all three together, which the founder's log remembers.
has_sealed() {
    "${compose[@]}" exec -T founder sh -c 'shoal status --json | python -c "$1"' sh '
import json, sys
status = json.load(sys.stdin)
rounds = [peer["rounds"] for peer in status["peers"]]
print("rounds of each peer:", rounds, [block["outcome"] for block in status["blocks"]], flush=True)
raise SystemExit(len(rounds) < 3 or min(rounds) < 3)' &&
        "${compose[@]}" logs founder | grep "sealed 3 of 3" >/dev/null
}

# Fails unless a request to the page, with further options of curl, is answered with this code.
answers() {
    expected=$1 path=$2
    shift 2
    code=$(curl --silent --output /dev/null --max-time 20 --write-out '%{http_code}' "$@" "$page$path") || true
    [ "$code" = "$expected" ] || fail "$page$path was answered with $code, not $expected ($*)"
}

"${compose[@]}" build
"${compose[@]}" up --detach --scale peer=2
until has_sealed; do
    if ((SECONDS > ${DEADLINE_S:-900})); then fail "no sealed rounds of three peers in ${DEADLINE_S:-900} s"; fi
    sleep 5
done

for service in founder peer; do
    user=$("${compose[@]}" exec -T "$service" id -u)
    [ "$user" = 1000 ] || fail "$service runs as user $user"
done

# What is published shows everything and changes nothing, unless the token is brought; no name leads there.
json=(--request POST --header "Content-Type: application/json" --data '{}')
answers 200 /live
answers 200 /status
answers 200 /metrics
answers 200 /health
answers 403 /status --header "Host: rebound.example"
answers 403 /pause "${json[@]}"
answers 403 /pause "${json[@]}" --header "Authorization: Bearer not-the-token-at-all"
answers 403 /pause "${json[@]}" --header "Authorization: Bearer $SHOAL_TOKEN" --header "Origin: http://other.example"
answers 200 /pause "${json[@]}" --header "Authorization: Bearer $SHOAL_TOKEN"
answers 200 /resume "${json[@]}" --header "Authorization: Bearer $SHOAL_TOKEN"
"${compose[@]}" exec -T founder shoal pause
"${compose[@]}" exec -T founder shoal resume

"${compose[@]}" stop
for container in $("${compose[@]}" ps --all --quiet); do
    code=$(docker inspect --format '{{.State.ExitCode}}' "$container")
    [ "$code" = 0 ] || fail "a stopped peer exited with $code"
done
echo "containers: three peers sealed rounds together, the page was read-only without its token, and all left cleanly"
