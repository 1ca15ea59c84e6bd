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
# Both work in the folder of the keys.
certificate() { # name subject [subjectAltName]
  openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -set_serial "0x$(openssl rand -hex 8)" -days 365 -out "$1.crt" \
    -extfile <(echo "extendedKeyUsage=serverAuth,clientAuth"; [ -z "${3:-}" ] || echo "subjectAltName=$3") 2>/dev/null
}
kubeconfig() { # user file
  cat >"$2" <<Y
apiVersion: v1
kind: Config
clusters: [{name: rivven-$RIVVEN_CLUSTER, cluster: {server: "https://$NODE_IP:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: rivven-$RIVVEN_CLUSTER, context: {cluster: rivven-$RIVVEN_CLUSTER, user: $1}}]
current-context: rivven-$RIVVEN_CLUSTER
Y
}
