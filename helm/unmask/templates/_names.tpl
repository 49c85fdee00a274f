{{/* Names, labels and images. */}}

{{- define "unmask.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "unmask.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .side }}
unmask/side: {{ . }}
{{- end }}
{{- end -}}

{{- define "unmask.labels" -}}
{{ include "unmask.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "unmask.image" -}}
{{- $tag := default .appVersion .image.tag -}}
{{ .image.repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end -}}

{{- define "unmask.serviceAccount" -}}
{{- $made := ternary (include "unmask.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $made .Values.serviceAccount.name -}}
{{- end -}}

{{/* HOST:PORT of Triton; empty where models run inside the processes. */}}
{{- define "unmask.triton" -}}
{{- if .Values.triton.enabled }}{{ include "unmask.fullname" . }}-triton:8001{{ else }}{{ .Values.triton.url }}{{ end -}}
{{- end -}}
