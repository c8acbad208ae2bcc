#!/usr/bin/env bash
# Build the sidecar's image without Docker or a registry, and try it as deploy/kubernetes.yaml runs it: as the image's user,
# with no capabilities, on a read-only root with a tmpfs on /tmp, and here also with no network but loopback.
#
#   sudo deploy/try_image.sh [OPTION OF buildah build]...
#
# Needs root, Python's package index, 10 GB, and of Debian's packages buildah, debootstrap, curl and iproute2. With an index
# of your own: --secret id=pip,src=pip.conf --build-arg TORCH_INDEX=https://... The work is done in $WORK, by default
# /var/tmp/ctxprune-image, where the base is kept for the next time; delete the folder when done. SUITE is the Debian of the
# base.
set -euo pipefail

WORK=${WORK:-/var/tmp/ctxprune-image}
SUITE=${SUITE:-bookworm}
BASE=localhost/python-base:$SUITE
IMAGE=localhost/ctxprune:trial
GRACE_SECONDS=60 # terminationGracePeriodSeconds of the manifest
URL=http://127.0.0.1:8080

buildah() { command buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver vfs "$@"; }

setting() { buildah inspect --type image --format "$1" "$IMAGE"; }

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
    buildah build --isolation chroot --network host --format docker -f deploy/Dockerfile --build-arg PYTHON="$BASE" \
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
}

in_image() {
    exec chroot "$ROOT" /usr/bin/setpriv --reuid="${USER_GROUP%:*}" --regid="${USER_GROUP#*:}" --clear-groups \
        --no-new-privs --bounding-set=-all --inh-caps=-all /usr/bin/env -i "${ENVIRONMENT[@]}" "$@"
}

get() { curl --silent --show-error --fail --retry 90 --retry-delay 1 --retry-connrefused "$@"; }

ask() {
    get "$URL/livez" && echo
    get "$URL/readyz" && echo
    (in_image "${HEALTHCHECK[@]}") && echo "the image's own health check passes"
    local answer
    answer=$(get "$URL/v1/compress" -H 'content-type: application/json' -d '{"query": "When was the bridge opened?",
      "documents": ["It was opened in 1911. Swallows nest under it."]}')
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

try_image() {
    mount_root
    if touch "$ROOT/writable" 2> /dev/null; then
        echo "the root can be written to" >&2
        return 1
    fi
    (in_image "${COMMAND[@]}") &
    local server=$!
    ask
    grep -E '^(Uid|CapEff|NoNewPrivs):' "$ROOT/proc/$server/status"
    echo "files in /tmp: $(find "$ROOT/tmp" -type f | wc -l)"
    SECONDS=0
    stop "$server"
}

cd "$(dirname "$0")/.."
mkdir -p "$WORK"
if [[ ${1:-} != --inside ]]; then
    make_base
    build_image "$@"
    container=$(buildah from "$IMAGE")
    trap 'buildah rm "$container" > /dev/null' EXIT
    root=$(buildah mount "$container")
    echo "on disk: $(du -sh "$root" | cut -f 1) in all, $(du -sh "$root/venv" | cut -f 1) of it packages"
    unshare --mount --net --pid --fork --kill-child -- "$0" --inside "$root"
    exit
fi
ROOT=$2
mapfile -t ENVIRONMENT < <(setting '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' | grep .)
mapfile -t COMMAND < <(setting '{{range .OCIv1.Config.Cmd}}{{println .}}{{end}}' | grep .)
mapfile -t HEALTHCHECK < <(setting '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' | grep . | tail -n +2)
USER_GROUP=$(setting '{{.OCIv1.Config.User}}')
try_image
