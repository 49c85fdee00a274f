{{/* What every pod has in common: who it runs as, where it may run, the volumes that hold models. */}}

{{- define "unmask.podSecurity" -}}
serviceAccountName: {{ default (include "unmask.serviceAccount" .root) .account }}
automountServiceAccountToken: false
# Or Services of the namespace would become variables that begin with UNMASK_.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .uid }}
  runAsGroup: {{ .uid }}
  fsGroup: {{ .uid }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "unmask.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* `.p` is a process, or the values of Triton. */}}
{{- define "unmask.scheduling" -}}
topologySpreadConstraints:
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- include "unmask.selector" $ | nindent 8 }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" }}
{{- with index $.p $key }}
{{ toYaml (dict $key .) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Models out of S3, each file checked against its card, before anything else starts. */}}
{{- define "unmask.pullModels" -}}
{{- $v := .Values -}}
- name: models
  image: {{ include "unmask.image" (dict "image" $v.image "appVersion" .Chart.AppVersion) }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  args: {{ concat (list "models" "pull" "--from" (printf "s3://%s" (default $v.s3.bucket $v.models.bucket))) $v.models.versions | toJson }}
  env:
    - {name: UNMASK_MODELS, value: /models}
    {{- include "unmask.s3Env" . | nindent 4 }}
  resources:
    requests: {cpu: 100m, memory: 256Mi}
    limits: {memory: 1Gi}
  securityContext: {{- include "unmask.containerSecurity" . | nindent 4 }}
  volumeMounts: {{- include "unmask.modelMounts" . | nindent 4 }}
    - {name: tmp, mountPath: /tmp}
    {{- include "unmask.caMount" . | nindent 4 }}
{{- end -}}

{{- define "unmask.modelMounts" -}}
- {name: models, mountPath: /models{{ if eq .Values.models.source "pvc" }}, readOnly: true{{ end }}}
{{- if and (eq .Values.models.source "s3") .Values.models.release }}
- {name: first, mountPath: /models/release.json, subPath: release.json, readOnly: true}
{{- end }}
{{- end -}}

{{- define "unmask.modelVolume" -}}
- name: models
{{- if eq .Values.models.source "pvc" }}
  persistentVolumeClaim: {claimName: {{ .Values.models.existingClaim }}, readOnly: true}
{{- else }}
  emptyDir: {}
{{- end }}
{{- end -}}

{{- define "unmask.firstVolume" }}
{{- if or .Values.models.release .Values.policy }}
- name: first
  configMap: {name: {{ include "unmask.fullname" . }}-first}
{{- end }}
{{- end -}}

{{- define "unmask.caMount" }}
{{- if .Values.caBundle.configMap }}
- {name: ca, mountPath: /etc/unmask/ca, readOnly: true}
{{- end }}
{{- end -}}

{{- define "unmask.caVolume" }}
{{- with .Values.caBundle.configMap }}
- name: ca
  configMap: {name: {{ . }}}
{{- end }}
{{- end -}}

{{- define "unmask.tlsVolume" -}}
- name: tls
  secret: {secretName: {{ .Values.tls.existingSecret }}, defaultMode: 0440}
{{- end -}}

{{/* Mounts and volumes of a process.  In /tmp: metrics of child processes, pictures that are looked into. */}}
{{- define "unmask.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .p.models }}
{{ include "unmask.modelMounts" .root }}
{{- end }}
{{- if .root.Values.policy }}
- {name: first, mountPath: /etc/unmask/first, readOnly: true}
{{- end }}
{{- if include "unmask.usesTls" . }}
- {name: tls, mountPath: /etc/unmask/tls, readOnly: true}
{{- end }}
{{- include "unmask.caMount" .root }}
{{- if .root.Values.c2paTrust.configMap }}
- {name: c2pa, mountPath: /etc/unmask/c2pa, readOnly: true}
{{- end }}
{{- end -}}

{{- define "unmask.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- if .p.models }}
{{ include "unmask.modelVolume" .root }}
{{- end }}
{{- include "unmask.firstVolume" .root }}
{{- if include "unmask.usesTls" . }}
{{ include "unmask.tlsVolume" .root }}
{{- end }}
{{- include "unmask.caVolume" .root }}
{{- with .root.Values.c2paTrust.configMap }}
- {name: c2pa, configMap: {name: {{ . }}}}
{{- end }}
{{- end -}}
