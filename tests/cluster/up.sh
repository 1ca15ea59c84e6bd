#!/usr/bin/env bash
# Starts a real Kubernetes of one node: etcd, API server, controller manager, scheduler, containerd, kubelet, kube-proxy
# and CoreDNS, inside a network namespace of its own. Needs root.
. "$(dirname "$0")/lib.sh"
mkdir -p "$STATE"/{pki,log,etcd,cni,run,volumes,audit}
cp "$here/audit-policy.yaml" "$STATE/audit/policy.yaml"
ip netns add "$NETNS"
ip link add "$LINK" type veth peer name eth0 netns "$NETNS"
ip addr add "$HOST_IP/24" dev "$LINK" && ip link set "$LINK" up
ip -n "$NETNS" addr add "$NODE_IP/24" dev eth0
ip -n "$NETNS" link set eth0 up && ip -n "$NETNS" link set lo up
ip -n "$NETNS" route add default via "$HOST_IP"
in_ns sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'

cd "$STATE/pki"
openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout ca.key -out ca.crt -subj /CN=rivven-local-ca 2>/dev/null
openssl genrsa -out sa.key 2048 2>/dev/null && openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
certificate apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1,IP:$NODE_IP" &
certificate admin /O=system:masters/CN=admin &
certificate kcm /CN=system:kube-controller-manager &
certificate scheduler /CN=system:kube-scheduler &
certificate proxy /CN=system:kube-proxy &
certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet &
wait
for user in kcm scheduler proxy; do kubeconfig "$user" "$user.conf"; done
kubeconfig admin "$STATE/admin.conf"
chmod 600 "$STATE/admin.conf"

start etcd "$BIN/etcd" --data-dir "$STATE/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
  --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
start kube-apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --service-cluster-ip-range=10.96.0.0/16 \
  --secure-port=6443 --advertise-address="$NODE_IP" --tls-cert-file="$STATE/pki/apiserver.crt" --tls-private-key-file=apiserver.key \
  --client-ca-file=ca.crt --authorization-mode=Node,RBAC --allow-privileged=true \
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
  --kubelet-client-certificate=apiserver-kubelet.crt --kubelet-client-key=apiserver-kubelet.key \
  --kubelet-certificate-authority=ca.crt --kubelet-preferred-address-types=InternalIP \
  --audit-policy-file="$STATE/audit/policy.yaml" --audit-log-path="$STATE/audit/audit.log" --audit-log-mode=batch \
  --audit-log-batch-max-wait=1s
start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig="$STATE/pki/kcm.conf" --use-service-account-credentials \
  --service-account-private-key-file=sa.key --root-ca-file=ca.crt --cluster-signing-cert-file=ca.crt --cluster-signing-key-file=ca.key \
  --leader-elect=false
start kube-scheduler "$BIN/kube-scheduler" --kubeconfig="$STATE/pki/scheduler.conf" --leader-elect=false
await "the API server" admin get --raw /readyz
await "service accounts" admin get serviceaccount default

cat >"$STATE/cni/10-bridge.conflist" <<Y
{"cniVersion":"1.0.0","name":"pods","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}],"dataDir":"$STATE/run/ipam"}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
Y
"$here/node.sh" 1
start kube-proxy "$BIN/kube-proxy" --kubeconfig="$STATE/pki/proxy.conf" --hostname-override=node-1 --proxy-mode=iptables \
  --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0
cat >"$STATE/Corefile" <<Y
.:53 {
  bind $NODE_IP
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $STATE/admin.conf
    pods insecure
    ttl 1
  }
}
Y
start coredns "$BIN/coredns" -conf "$STATE/Corefile"
admin apply -f "$here/storage-class.yaml" >/dev/null
admin create --validate=false -f "$BIN/cert-manager.yaml" >/dev/null
admin create namespace cert-manager >/dev/null
start cert-manager "$BIN/cert-manager" --kubeconfig="$STATE/admin.conf" --cluster-resource-namespace=cert-manager
