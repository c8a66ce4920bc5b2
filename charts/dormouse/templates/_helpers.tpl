{{/* Names are cut at 52 characters, so that every suffix of ours fits the 63 of a label. */}}
{{- define "dormouse.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dormouse.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "dormouse.labels" -}}
{{- $labels := dict
      "app.kubernetes.io/managed-by" .Release.Service
      "app.kubernetes.io/part-of" "dormouse"
      "app.kubernetes.io/version" .Chart.AppVersion
      "helm.sh/chart" (printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_")) -}}
{{- toYaml (mustMergeOverwrite (deepCopy .Values.commonLabels) $labels (include "dormouse.selectorLabels" . | fromYaml)) -}}
{{- end -}}

{{- define "dormouse.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "dormouse.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "dormouse.tokenSecretName" -}}
{{- default (printf "%s-token" (include "dormouse.fullname" .)) .Values.token.existingSecret -}}
{{- end -}}

{{- define "dormouse.leaseName" -}}
{{- default (include "dormouse.fullname" .) .Values.leaderElection.leaseName -}}
{{- end -}}

{{- define "dormouse.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with .Values.image.registry -}}{{- $repository = printf "%s/%s" . $repository -}}{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that the operator works in, as JSON; an empty list means all of them. */}}
{{- define "dormouse.namespaces" -}}
{{- if eq .Values.scope "cluster" -}}
[]
{{- else -}}
{{- default (list .Release.Namespace) .Values.watchNamespaces | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{/* What a schema can't say, or can't say so that a person understands it. */}}
{{- define "dormouse.validate" -}}
{{- if and (eq .Values.scope "cluster") .Values.watchNamespaces -}}
{{- fail "watchNamespaces works with scope: namespace only; set scope: namespace, or leave watchNamespaces out to watch them all" -}}
{{- end -}}
{{- if and .Values.token.existingSecret .Values.token.copyToNamespaces -}}
{{- fail "token.copyToNamespaces copies the Secret that the chart makes; with token.existingSecret put your Secret into these namespaces yourself" -}}
{{- end -}}
{{- if has .Release.Namespace .Values.token.copyToNamespaces -}}
{{- fail (printf "token.copyToNamespaces: the release's own namespace %q has the Secret already" .Release.Namespace) -}}
{{- end -}}
{{- $own := list "DORMOUSE_TOKEN_FILE" "DORMOUSE_NAMESPACES" "DORMOUSE_LEASE_NAMESPACE" "DORMOUSE_LEASE_NAME" "DORMOUSE_IDENTITY" "DORMOUSE_HEALTH_ADDRESS" "DORMOUSE_HEALTH_PORT" "DORMOUSE_LOG_FORMAT" "DORMOUSE_LOG_LEVEL" -}}
{{- range .Values.extraEnv -}}
{{- if has .name $own -}}
{{- fail (printf "extraEnv: %s is set by the chart from its own values" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
