#!/usr/bin/env bash
# Builds a from-scratch image and loads it into each node of the cluster.
# Usage: [CMD=argument] image.sh NAME:TAG ENTRYPOINT USER FILE=/destination ...
. "$(dirname "$0")/lib.sh"
name=$1 entrypoint=$2 user=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umoci init --layout "$work/l" && umoci new --image "$work/l:t"
for file in "$@"; do umoci insert --image "$work/l:t" "${file%%=*}" "${file#*=}"; done
umoci config --image "$work/l:t" --config.entrypoint "$entrypoint" ${CMD:+--config.cmd "$CMD"} --config.user "$user" --os linux --architecture amd64
skopeo copy -q "oci:$work/l:t" "docker-archive:$work/i.tar:$name"
for socket in "$STATE"/run/node-*/containerd.sock; do ctr -a "$socket" -n k8s.io images import "$work/i.tar" >/dev/null; done
