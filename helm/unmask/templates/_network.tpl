{{/* Rules of NetworkPolicies: a block of values with `port` and `peers`, which are any address where none is named. */}}
{{- define "unmask.to" -}}
- ports: [{port: {{ .port }}}]
  {{- with .peers }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "unmask.toDns" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
  to: {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
{{- end -}}

{{- define "unmask.toS3" -}}
{{- $url := urlParse .Values.s3.endpoint -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- include "unmask.to" (dict "port" (default (ternary 443 80 (eq $url.scheme "https")) $port) "peers" .Values.s3.peers) -}}
{{- end -}}

{{- define "unmask.toTriton" -}}
{{- if .Values.triton.enabled -}}
- ports: [{port: 8001}]
  to:
    - podSelector:
        matchLabels: {{- include "unmask.selector" (dict "root" . "component" "triton") | nindent 10 }}
{{- else if .Values.triton.url -}}
{{ include "unmask.to" (dict "port" (splitList ":" .Values.triton.url | last) "peers" .Values.triton.peers) }}
{{- end -}}
{{- end -}}

{{/* Public addresses, and those private ones that are allowed by name. */}}
{{- define "unmask.toOutside" -}}
- ports: {{ range .Values.networkPolicy.outsidePorts }}
    - {port: {{ . }}}{{ end }}
  to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]}
    - ipBlock: {cidr: "::/0", except: ["fc00::/7", "fe80::/10"]}
{{- with .Values.allowPrivate }}
- to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end }}
{{- end -}}
