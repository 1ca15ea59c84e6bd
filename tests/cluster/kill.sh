#!/usr/bin/env bash
# Ends a container by SIGKILL.
# Usage: kill.sh containerd://ID, as a pod's status names it
. "$(dirname "$0")/lib.sh"
ctr -a "$STATE/run/containerd.sock" -n k8s.io tasks kill --signal SIGKILL "${1#containerd://}"
