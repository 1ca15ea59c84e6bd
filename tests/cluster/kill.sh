#!/usr/bin/env bash
# Ends a container by SIGKILL.
# Usage: kill.sh containerd://ID, as a pod's status names it
. "$(dirname "$0")/lib.sh"
for socket in "$STATE"/run/node-*/containerd.sock; do
  ctr -a "$socket" -n k8s.io tasks kill --signal SIGKILL "${1#containerd://}" 2>/dev/null && exit
done
exit 1
