{{/* Labels of a definition: (list . "<its own labels, as JSON>"). Its own win, those of the values come last. */}}
{{- define "dormouse-crds.labels" -}}
{{- $root := index . 0 -}}
{{- $labels := dict
      "app.kubernetes.io/instance" $root.Release.Name
      "app.kubernetes.io/managed-by" $root.Release.Service
      "app.kubernetes.io/version" $root.Chart.AppVersion
      "helm.sh/chart" (printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_")) -}}
{{- toYaml (mustMergeOverwrite (deepCopy $root.Values.commonLabels) $labels (index . 1 | fromJson)) -}}
{{- end -}}

{{/* Annotations of a definition: (list . "<its own annotations, as JSON>"), or nothing. */}}
{{- define "dormouse-crds.annotations" -}}
{{- $root := index . 0 -}}
{{- $annotations := mustMergeOverwrite (index . 1 | fromJson) (deepCopy $root.Values.annotations) -}}
{{- if $root.Values.keep -}}
{{- $_ := set $annotations "helm.sh/resource-policy" "keep" -}}
{{- end -}}
{{- if $annotations -}}
{{- toYaml $annotations -}}
{{- end -}}
{{- end -}}
