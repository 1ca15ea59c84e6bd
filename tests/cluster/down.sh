#!/usr/bin/env bash
# Stops a cluster and removes all it left, also after a killed run. Every process is ended by its own id.
. "$(dirname "$0")/lib.sh"
set +e
end() {
  local signal=$1
  shift
  [ $# -eq 0 ] || kill "-$signal" "$@" 2>/dev/null
}
# A pid file may outlive its process: only a process that runs in our namespace or from our state is ours to end.
ours() { [ -d "/proc/$1" ] && tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF "$STATE/"; }
for file in "$STATE"/run/volumes.pid "$STATE"/run/kubelet-*.pid; do # kubelets first, or they would start the containers again
  pid=$(cat "$file" 2>/dev/null)
  [ -n "$pid" ] && ours "$pid" && end KILL "$pid"
done
tasks=$(for socket in "$STATE"/run/node-*/containerd.sock; do
  timeout 10 ctr -a "$socket" -n k8s.io tasks ls 2>/dev/null | awk 'NR > 1 {print $2}'
done)
sandboxes=$(for pid in $tasks; do ip netns identify "$pid" 2>/dev/null; done | sort -u | grep '^cni-')
end KILL $tasks
for signal in TERM KILL; do
  pids=$(ip netns pids "$NETNS" 2>/dev/null)
  end "$signal" $pids
  for ((n = 0; n < 30; n++)); do
    [ -z "$(ip netns pids "$NETNS" 2>/dev/null)" ] && break
    sleep .1
  done
done
# Containers whose runtime was killed keep running: they are found by the cluster's own cgroup.
for ((n = 0; n < 20; n++)); do
  left=$(cat $(find /sys/fs/cgroup/*/"$NETNS"-[0-9]* /sys/fs/cgroup/"$NETNS"-[0-9]* -name cgroup.procs 2>/dev/null) /dev/null 2>/dev/null | sort -u)
  [ -z "$left" ] && break
  end KILL $left
  sleep .1
done
# Containers whose shim was killed keep running: they are found by their working state under ours.
for shim in $(grep -slF "$STATE/" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3); do
  case "$(tr '\0' ' ' <"/proc/$shim/cmdline" 2>/dev/null)" in *containerd-shim*) end KILL "$shim" ;; esac
done
awk -v s="$STATE/" 'index($2, s) == 1 {print $2}' /proc/mounts | sort -r | xargs -r -n1 umount -l
losetup -l -n -O NAME,BACK-FILE 2>/dev/null | awk -v s="$STATE/" 'index($2, s) == 1 {print $1}' | xargs -r -n1 losetup -d
for sandbox in $sandboxes; do ip netns del "$sandbox" 2>/dev/null; done
ip link del "$LINK" 2>/dev/null
ip netns del "$NETNS" 2>/dev/null
find /sys/fs/cgroup/*/"$NETNS"-[0-9]* /sys/fs/cgroup/"$NETNS"-[0-9]* -depth -type d -exec rmdir {} + 2>/dev/null
rm -rf "$STATE"
exit 0
