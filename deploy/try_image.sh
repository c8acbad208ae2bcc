#!/usr/bin/env bash
# Build the sidecar's image, or with --light that for jobs, without Docker or a registry, and try it as deploy/kubernetes.yaml
# runs it: as the image's user, with no capabilities, on a read-only root with a tmpfs on /tmp, and here also with no network
# but loopback.
#
#   sudo deploy/try_image.sh [--light] [OPTION OF buildah build]...
#
# Needs root, Python's package index, 10 GB, and of Debian's packages buildah, debootstrap, curl and iproute2; the light image
# needs 3 GB. With an index of your own: --secret id=pip,src=pip.conf --build-arg TORCH_INDEX=https://... The work is done in
# $WORK, by default /var/tmp/ctxprune-image, where the base is kept for the next time; delete the folder when done. SUITE is
# the Debian of the base.
set -euo pipefail

WORK=${WORK:-/var/tmp/ctxprune-image}
SUITE=${SUITE:-bookworm}
BASE=localhost/python-base:$SUITE
LIGHT=
if [[ ${1:-} == --light ]]; then
    LIGHT=--light
    shift
fi
IMAGE=localhost/ctxprune${LIGHT#-}:trial
FILE=deploy/Dockerfile${LIGHT:+.light}
GRACE_SECONDS=60 # terminationGracePeriodSeconds of the manifest
URL=http://127.0.0.1:8080
TEXT="It was opened in 1911. Swallows nest under it."

buildah() { command buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver vfs "$@"; }

setting() { buildah inspect --type image --format "$1" "$IMAGE"; }

# of the files themselves, as registries and `docker images` count, in units of 1,000,000 bytes
megabytes() { find "$1" -type f -printf '%s\n' | awk '{sum += $1} END {printf "%.0f\n", sum / 1000000}'; }

# a folder is an image as soon as it is committed
make_base() {
    if buildah inspect --type image "$BASE" > /dev/null 2>&1; then return; fi
    rm -rf "$WORK/base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$SUITE" "$WORK/base" > "$WORK/debootstrap.log"
    rm -rf "$WORK"/base/var/cache/apt/archives/*.deb "$WORK"/base/var/lib/apt/lists/*
    local container
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$WORK/base" / > /dev/null
    buildah commit --quiet --rm "$container" "$BASE" > /dev/null
    rm -rf "$WORK/base"
}

# the format is Docker's: OCI's has no HEALTHCHECK
build_image() {
    buildah build --isolation chroot --network host --format docker -f "$FILE" --build-arg PYTHON="$BASE" \
        -t "$IMAGE" "$@" .
}

# The rest runs in namespaces of its own, so that its mounts and its port are nobody else's and end with it.
mount_root() {
    ip link set lo up
    mount --bind "$ROOT" "$ROOT"
    mount -o remount,ro,bind "$ROOT"
    mount -t proc proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    mount -t tmpfs -o mode=1777,size=64m tmpfs "$ROOT/tmp"
    if touch "$ROOT/writable" 2> /dev/null; then
        echo "the root can be written to" >&2
        return 1
    fi
}

in_image() {
    exec chroot "$ROOT" /usr/bin/setpriv --reuid="${USER_GROUP%:*}" --regid="${USER_GROUP#*:}" --clear-groups \
        --no-new-privs --bounding-set=-all --inh-caps=-all /usr/bin/env -i --chdir="$FOLDER" "${ENVIRONMENT[@]}" "$@"
}

get() { curl --silent --show-error --fail --retry 90 --retry-delay 1 --retry-connrefused "$@"; }

ask() {
    get "$URL/livez" && echo
    get "$URL/readyz" && echo
    (in_image "${HEALTHCHECK[@]}") && echo "the image's own health check passes"
    local answer
    answer=$(get "$URL/v1/compress" -H 'content-type: application/json' \
        -d "{\"query\": \"When was the bridge opened?\", \"documents\": [\"$TEXT\"]}")
    echo "$answer"
    if [[ $answer == *'"status":"degraded"'* ]]; then
        echo "the model failed" >&2
        return 1
    fi
}

stop() {
    local server=$1 status=0
    kill -TERM "$server"
    (sleep "$GRACE_SECONDS" && kill -KILL "$server") &
    wait "$server" || status=$?
    # the signal itself, or 0; killed when the grace was over, it would be 137
    if [[ $status != 0 && $status != 143 ]]; then
        echo "the server ended with $status on SIGTERM" >&2
        return 1
    fi
    echo "ended on SIGTERM with $status after $SECONDS s"
}

try_server() {
    mount_root
    (in_image "${COMMAND[@]}") &
    local server=$!
    ask
    grep -E '^(Uid|CapEff|NoNewPrivs):' "$ROOT/proc/$server/status"
    echo "files in /tmp: $(find "$ROOT/tmp" -type f | wc -l)"
    SECONDS=0
    stop "$server"
}

# A file of questions in a folder of the caller's, as the head of Dockerfile.light mounts it.
try_jobs() {
    mount_root
    mount -t tmpfs -o mode=1777,size=64m tmpfs "$ROOT/data"
    local name kept
    for name in bridge tower; do
        echo "{\"question\": \"When was the $name opened?\", \"documents\": [\"$TEXT\"]}"
    done > "$ROOT/data/questions.jsonl"
    (in_image "${COMMAND[@]}" map questions.jsonl out/ --workers 2)
    kept=$(grep --count '"text": "It was opened in 1911."' "$ROOT"/data/out/part-00000.jsonl)
    echo "pruned: $kept of 2"
    [[ $kept == 2 ]]
    (in_image "${COMMAND[@]}" compress -q "When was the bridge opened?" --text <<< "$TEXT")
    if (in_image "${COMMAND[@]}" serve); then
        echo "the light image has a server" >&2
        return 1
    fi
}

cd "$(dirname "$0")/.."
mkdir -p "$WORK"
if [[ ${1:-} != --inside ]]; then
    make_base
    build_image "$@"
    container=$(buildah from "$IMAGE")
    trap 'buildah rm "$container" > /dev/null' EXIT
    root=$(buildah mount "$container")
    echo "image: $(megabytes "$root") MB in all, $(megabytes "$root/venv") of it packages"
    unshare --mount --net --pid --fork --kill-child -- "$0" $LIGHT --inside "$root"
    exit
fi
ROOT=$2
mapfile -t ENVIRONMENT < <(setting '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' | grep .)
USER_GROUP=$(setting '{{.OCIv1.Config.User}}')
FOLDER=$(setting '{{.OCIv1.Config.WorkingDir}}')
FOLDER=${FOLDER:-/}
if [[ $LIGHT ]]; then
    mapfile -t COMMAND < <(setting '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}' | grep .)
    try_jobs
    exit
fi
mapfile -t COMMAND < <(setting '{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' | grep .)
mapfile -t HEALTHCHECK < <(setting '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' | grep . | tail -n +2)
try_server
