{{/* The processes that run, by name (`alignment-work`): defaults, under the values of each, under what it is (processes.yaml). */}}
{{- define "unmask.processes" -}}
{{- $facts := .Files.Get "processes.yaml" | fromYaml -}}
{{- $all := dict -}}
{{- range $component, $sides := .Values.components -}}
{{- range $side, $own := $sides -}}
{{- $is := dict "component" $component "side" $side "scales" (eq $side "serve") -}}
{{- $p := mustMergeOverwrite (deepCopy $.Values.defaults) (deepCopy $own) (index $facts $component $side) $is -}}
{{- if $p.queues -}}
{{- $queues := list -}}
{{- range $p.queues -}}
{{- if or (eq $p.lane "all") (eq (hasSuffix ".batch" .) (eq $p.lane "batch")) -}}{{- $queues = append $queues . -}}{{- end -}}
{{- end -}}
{{- $p = mustMergeOverwrite $p (dict "queues" $queues "scales" true) -}}
{{- end -}}
{{- if $p.enabled -}}{{- $_ := set $all (printf "%s-%s" $component $side) $p -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}
