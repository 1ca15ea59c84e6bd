#!/usr/bin/env bash
# Ends a container by SIGKILL.
# Usage: kill.sh CONTAINER-ID
. "$(dirname "$0")/lib.sh"
ctr -a "$STATE/run/containerd.sock" -n k8s.io tasks kill --signal SIGKILL "$1"
