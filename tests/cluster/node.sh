#!/usr/bin/env bash
# Adds a node to a cluster: a containerd and a kubelet of its own, with every image that the first node has.
# Nothing happens if it is there.
# Usage: node.sh NUMBER
. "$(dirname "$0")/lib.sh"
number=$1
node=node-$number
run=$STATE/run/$node home=$STATE/$node
# All nodes have one address: the ports tell the kubelets apart.
port=$((10250 + 10 * (number - 1)))
# The pods of a node are in a group of its own: a kubelet removes those that it does not know.
group=$NETNS-$number
node_ready() { [ "$(admin get node "$node" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" = True ]; }
node_ready 2>/dev/null && exit
mkdir -p "$home/kubelet" "$run"
(
  cd "$STATE/pki"
  certificate "$node" "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$NODE_IP"
  kubeconfig "$node" "$home/kubelet.conf"
)
cat >"$home/containerd.toml" <<Y
version = 2
root = "$home/containerd"
state = "$run/containerd"
[grpc]
  address = "$run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE runc cannot lower the OOM score, and every sandbox would fail.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
Y
start "containerd-$number" containerd -c "$home/containerd.toml"
await "containerd" test -S "$run/containerd.sock"
if [ "$number" = 1 ]; then
  # catatonit is a static init; `catatonit -P` is what a pause container is.
  CMD=-P "$here/image.sh" localhost/pause:1 /catatonit 65535 /usr/bin/catatonit=/catatonit
else
  images=$(ctr -a "$STATE/run/node-1/containerd.sock" -n k8s.io images ls -q | grep -v '^sha256:')
  ctr -a "$STATE/run/node-1/containerd.sock" -n k8s.io images export "$home/images.tar" $images
  ctr -a "$run/containerd.sock" -n k8s.io images import "$home/images.tar" >/dev/null
  rm "$home/images.tar"
fi
: >"$home/resolv.conf"
cat >"$home/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
port: $port
healthzPort: $((port - 2))
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /$group
clusterDNS: [$NODE_IP]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$run/containerd.sock
authentication: {anonymous: {enabled: false}, x509: {clientCAFile: $STATE/pki/ca.crt}, webhook: {enabled: true}}
authorization: {mode: Webhook}
tlsCertFile: $STATE/pki/$node.crt
tlsPrivateKeyFile: $STATE/pki/$node.key
resolvConf: $home/resolv.conf
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
imageGCHighThresholdPercent: 100
maxPods: 250
volumePluginDir: $home/plugins
# Of its own: a kubelet removes the logs of pods it does not know, and another cluster's pods are such.
podLogsDir: $home/pod-logs
Y
for controller in /sys/fs/cgroup/*/; do mkdir -p "$controller/$group" 2>/dev/null || true; done
if [ -f /sys/fs/cgroup/cpuset/cpuset.cpus ]; then # cgroup v1: a new cpuset has no processors until it is given some
  for file in cpuset.cpus cpuset.mems; do cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$group/$file"; done
fi
start "kubelet-$number" "$BIN/kubelet" --config="$home/kubelet.yaml" --kubeconfig="$home/kubelet.conf" --root-dir="$home/kubelet" \
  --cert-dir="$home/certs" --hostname-override="$node" --node-ip="$NODE_IP"
await "a Ready node" node_ready
