#!/usr/bin/env bash
# Runs a founder and two peers in containers until all three have sealed rounds together, then stops them.
# Needs a Docker engine and Compose (1.29 or 2). BASE_IMAGE and TORCH_INDEX are passed on to the build;
# DEADLINE_S (900) bounds the wait.
set -euo pipefail
cd "$(dirname "$0")/../.."

project=shoal-check-$$
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(--project-name "$project" --file docker-compose.yml)

finish() {
    status=$?
    if [ "$status" != 0 ]; then "${compose[@]}" logs --tail 60 || true; fi
    "${compose[@]}" down --volumes --timeout 60
    exit "$status"
}
trap finish EXIT

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

"${compose[@]}" build
"${compose[@]}" up --detach --scale peer=2
until has_sealed; do
    if ((SECONDS > ${DEADLINE_S:-900})); then echo "no sealed rounds of three peers in ${DEADLINE_S:-900} s" >&2; exit 1; fi
    sleep 5
done

"${compose[@]}" stop
for container in $("${compose[@]}" ps --all --quiet); do
    code=$(docker inspect --format '{{.State.ExitCode}}' "$container")
    if [ "$code" != 0 ]; then echo "a stopped peer exited with $code" >&2; exit 1; fi
done
echo "containers: three peers sealed rounds together and left cleanly"
