{{/*
All that the operator may do, whether in every namespace or in those that it is given.
What has a controller owner is deleted by the garbage collector, so most kinds need no delete here.
*/}}
{{- define "rivven-operator.rules" -}}
# patch: finalizers and annotations; the spec is the user's.
- apiGroups: [rivven.io]
  resources: [rivvenclusters, rivvenconnects, rivventopics]
  verbs: [get, list, watch, patch]
- apiGroups: [rivven.io]
  resources: [rivvenclusters/status, rivvenconnects/status, rivventopics/status]
  verbs: [patch]
# delete: a StatefulSet is replaced, without its pods, when its volume template changes. patch: its size, and notes on it.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, update, patch, delete]
# Workers. delete: one that runs no connector any more.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, update, delete]
# Only where one is asked for.
- apiGroups: [monitoring.coreos.com]
  resources: [servicemonitors]
  verbs: [get, create, update]
# get: a foreign object of a needed name carries no label of ours, so no watch shows it.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, update]
# delete: what lets clients from outside in goes when it is switched off, or its broker is gone.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, update]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, update]
# Brokers are restarted by eviction, so that disruption budgets hold. delete: brokers that no StatefulSet keeps any more,
# of a cluster that is deleted while its StatefulSet is being replaced.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
# get: one of a needed name that carries no label of ours. patch: growing. delete: the volume of a broker that has left
# for good.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
# Only those that a spec names are read; create is for the operator's own, update for those of workers. Neither list nor
# watch.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update]
# What is asked of cert-manager, where a cluster names an issuer.
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, create, update]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
