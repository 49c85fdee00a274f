{{/* What a process is told.  `.root` is the chart's context, `.p` the process. */}}
{{- define "unmask.env" -}}
{{- $v := .root.Values -}}
{{- $triton := include "unmask.triton" .root -}}
- {name: UNMASK_METRICS, value: "0.0.0.0:9464"}
- {name: UNMASK_THREADS, value: {{ .p.threads | int | quote }}}
{{- include "unmask.databaseEnv" .root }}
- {name: UNMASK_BROKER, valueFrom: {secretKeyRef: {name: {{ $v.broker.existingSecret }}, key: {{ $v.broker.key }}}}}
{{- include "unmask.s3Env" .root }}
{{- if .p.models }}
- {name: UNMASK_MODELS, value: /models}
{{- if $triton }}
- {name: UNMASK_TRITON, value: {{ $triton | quote }}}
{{- if $v.triton.tls }}
- {name: UNMASK_TRITON_CA, value: /etc/unmask/tls/ca.crt}
{{- end }}
{{- end }}
{{- end }}
{{- if $v.policy }}
- {name: UNMASK_POLICY, value: /etc/unmask/first/policy.yaml}
{{- end }}
{{- if include "unmask.usesTls" . }}
- {name: UNMASK_TLS_CERT, value: /etc/unmask/tls/tls.crt}
- {name: UNMASK_TLS_KEY, value: /etc/unmask/tls/tls.key}
{{- if and (eq .p.side "serve") $v.tls.clientAuth }}
- {name: UNMASK_TLS_CA, value: /etc/unmask/tls/ca.crt}
{{- end }}
{{- end }}
{{- if and .p.urls $v.fetch.enabled }}
- {name: UNMASK_FETCH, value: "1"}
{{- end }}
{{- if and .p.outside $v.allowPrivate }}
- {name: UNMASK_ALLOW_PRIVATE, value: {{ join " " $v.allowPrivate | quote }}}
{{- end }}
{{- if and .p.events $v.webhooks.enabled }}
- {name: UNMASK_WEBHOOK_KEYS, valueFrom: {secretKeyRef: {name: {{ $v.webhooks.existingSecret }}, key: {{ $v.webhooks.key }}}}}
{{- end }}
{{- if and .p.events $v.events.exchange }}
- {name: UNMASK_EVENTS, value: {{ $v.events.exchange | quote }}}
{{- end }}
{{- if $v.c2paTrust.configMap }}
- {name: UNMASK_C2PA_TRUST, value: /etc/unmask/c2pa/{{ $v.c2paTrust.key }}}
{{- end }}
{{- if $v.traces.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ $v.traces.endpoint | quote }}}
{{- end }}
{{- range $name, $value := $v.settings }}
- {name: {{ $name }}, value: {{ toJson $value | trimAll "\"" | quote }}}
{{- end }}
{{- with .p.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "unmask.databaseEnv" }}
- {name: UNMASK_DATABASE, valueFrom: {secretKeyRef: {name: {{ .Values.database.existingSecret }}, key: {{ .Values.database.key }}}}}
{{- end -}}

{{- define "unmask.s3Env" }}
{{- $s3 := .Values.s3 }}
- {name: UNMASK_S3, value: {{ $s3.endpoint | quote }}}
- {name: UNMASK_S3_BUCKET, value: {{ $s3.bucket | quote }}}
- {name: UNMASK_S3_REGION, value: {{ $s3.region | quote }}}
- {name: UNMASK_S3_ACCESS_KEY, valueFrom: {secretKeyRef: {name: {{ $s3.existingSecret }}, key: {{ $s3.accessKey }}}}}
- {name: UNMASK_S3_SECRET_KEY, valueFrom: {secretKeyRef: {name: {{ $s3.existingSecret }}, key: {{ $s3.secretKey }}}}}
{{- if $s3.sse }}
- {name: UNMASK_S3_SSE, value: {{ $s3.sse | quote }}}
{{- end }}
{{- if $s3.create }}
- {name: UNMASK_S3_CREATE, value: "1"}
{{- end }}
{{- if .Values.caBundle.configMap }}
- {name: UNMASK_S3_CA, value: /etc/unmask/ca/{{ .Values.caBundle.key }}}
{{- end }}
{{- end -}}

{{/* Not empty where a process holds the certificate: as a server, or to show it to Triton. */}}
{{- define "unmask.usesTls" -}}
{{- if or (eq .p.side "serve") (and .p.models .root.Values.triton.tls (include "unmask.triton" .root)) }}yes{{ end -}}
{{- end -}}
