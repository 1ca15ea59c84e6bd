#!/usr/bin/env bash
# Runs a command against the API server of the oldest Kubernetes that is supported: etcd and API server alone, on loopback.
# Usage: oldest.sh STATE ETCD KUBE_APISERVER COMMAND …
set -euo pipefail
state=$1 etcd=$2 apiserver=$3
shift 3
rm -rf "$state" && mkdir -p "$state" && cd "$state"
end() { kill "${api:-}" "${db:-}" 2>/dev/null || true; }
trap end EXIT
openssl genrsa -out sa.key 2048 2>/dev/null && openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
token=$(openssl rand -hex 16)
echo "$token,admin,admin,system:masters" >tokens.csv
"$etcd" --data-dir etcd --unsafe-no-fsync --listen-client-urls http://127.0.0.1:22379 --advertise-client-urls http://127.0.0.1:22379 \
  --listen-peer-urls http://127.0.0.1:22380 >etcd.log 2>&1 &
db=$!
"$apiserver" --etcd-servers=http://127.0.0.1:22379 --bind-address=127.0.0.1 --secure-port=26443 --cert-dir=certificates \
  --service-cluster-ip-range=10.96.0.0/16 --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=sa.pub \
  --service-account-signing-key-file=sa.key --authorization-mode=RBAC --token-auth-file=tokens.csv \
  --disable-admission-plugins=ServiceAccount >apiserver.log 2>&1 &
api=$!
cat >admin.conf <<Y
apiVersion: v1
kind: Config
clusters: [{name: oldest, cluster: {server: "https://127.0.0.1:26443", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: oldest, context: {cluster: oldest, user: admin}}]
current-context: oldest
Y
chmod 600 admin.conf
for ((n = 0; n < 600; n++)); do
  curl -sk --fail -H "Authorization: Bearer $token" https://127.0.0.1:26443/readyz >/dev/null && break
  kill -0 "$api" || { tail -5 apiserver.log >&2; exit 1; }
  sleep .1
done
curl -sk -H "Authorization: Bearer $token" https://127.0.0.1:26443/version
echo
cd - >/dev/null
KUBECONFIG=$state/admin.conf "$@"
