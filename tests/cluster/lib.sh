# Sourced by the other scripts. The caller (`cargo xtask`) gives the environment:
#   RIVVEN_BIN      where the Kubernetes binaries are
#   RIVVEN_CLUSTER  name of the cluster: its network namespace is rivven-NAME
#   RIVVEN_STATE    where the cluster keeps its state
#   RIVVEN_SUBNET   the first three octets of its link to this machine
set -euo pipefail
: "${RIVVEN_BIN:?}" "${RIVVEN_CLUSTER:?}" "${RIVVEN_STATE:?}" "${RIVVEN_SUBNET:?}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BIN=$RIVVEN_BIN STATE=$RIVVEN_STATE
NETNS=rivven-$RIVVEN_CLUSTER
LINK=rv-$RIVVEN_CLUSTER
HOST_IP=$RIVVEN_SUBNET.1 NODE_IP=$RIVVEN_SUBNET.2
# Everything runs in one network namespace, entered by nsenter: `ip netns exec` remounts /sys, and kubelet would not
# find the cgroups.
in_ns() { nsenter --net="/run/netns/$NETNS" "$@"; }
start() {
  local name=$1
  shift
  # Not by in_ns: a function in the background is a shell of its own, and the pid file would name that shell.
  nsenter --net="/run/netns/$NETNS" setsid nohup "$@" >"$STATE/log/$name.log" 2>&1 </dev/null &
  echo $! >"$STATE/run/$name.pid"
}
admin() { in_ns "$BIN/kubectl" --kubeconfig "$STATE/admin.conf" "$@"; }
# Waits for a command to succeed, at most a minute.
await() {
  local what=$1 n
  shift
  for ((n = 0; n < 600; n++)); do
    "$@" >/dev/null 2>&1 && return
    sleep .1
  done
  echo "waited a minute in vain: $what (logs in $STATE/log)" >&2
  return 1
}
