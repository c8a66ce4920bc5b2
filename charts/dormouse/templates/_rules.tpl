{{/*
What the operator may do where it works: a rule per thing that it does. It reads no Secret, writes nothing of a
SleepingModel but its status, and changes no pod.
*/}}
{{- define "dormouse.rules" -}}
# The models, and the only part of them that is ever written.
- apiGroups: [dormouse.dev]
  resources: [sleepingmodels]
  verbs: [get, list, watch]
- apiGroups: [dormouse.dev]
  resources: [sleepingmodels/status]
  verbs: [patch]
# The engines; one that can't be recovered is deleted, so that its owner starts it anew.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
# The Deployment of a managed model, by server-side apply.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
# What a person should know.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
