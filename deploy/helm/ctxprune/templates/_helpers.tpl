{{/* The release's name, with the chart's behind it unless it is in there. */}}
{{- define "ctxprune.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What chooses the pods; it may never change in an upgrade. */}}
{{- define "ctxprune.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ctxprune.labels" -}}
{{ include "ctxprune.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "ctxprune.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "ctxprune.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "ctxprune.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* Settings as variables: text as it is, everything else as JSON, so that no number becomes 4e+06. */}}
{{- define "ctxprune.environment" -}}
{{- range $setting, $value := .Values.settings }}
{{- if regexMatch "(^|_)api_keys?$" (lower $setting) }}
{{- fail (printf "settings.%s: a key belongs in the secret; name it under secret.keys" $setting) }}
{{- end }}
{{- if not (kindIs "invalid" $value) }}
- name: CTXPRUNE_{{ upper $setting }}
  value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}
{{- range $setting, $key := .Values.secret.keys }}
{{- if $key }}
- name: CTXPRUNE_{{ upper $setting }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.secret.name | quote }}, key: {{ $key | quote }}}
{{- end }}
{{- end }}
{{- end -}}
