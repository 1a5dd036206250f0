{{- define "valetkey.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "valetkey.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "valetkey.labels" -}}
{{ include "valetkey.selector" . }}
app.kubernetes.io/component: {{ .Values.mode }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "valetkey.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{- define "valetkey.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "valetkey.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{/* The ports of the container: a list of name, port, and port and protocol of the service. */}}
{{- define "valetkey.ports" -}}
{{- $ports := list }}
{{- if or (eq .Values.mode "proxy") .Values.authorize.http }}
{{- $ports = append $ports (dict "name" "http" "port" 8080 "service" .Values.service.port "protocol" "http" "listen" (ternary "listen" "listen_http" (eq .Values.mode "proxy"))) }}
{{- end }}
{{- if and (eq .Values.mode "authorize") .Values.authorize.grpc }}
{{- $ports = append $ports (dict "name" "grpc" "port" 9000 "service" .Values.service.grpcPort "protocol" "kubernetes.io/h2c" "listen" "listen_grpc") }}
{{- end }}
{{- toJson $ports }}
{{- end }}

{{/* The configuration file. */}}
{{- define "valetkey.config" -}}
{{- $set := dict "probe" ":8081" "drain" (printf "%ds" (int .Values.drainSeconds)) "grace" (printf "%ds" (int .Values.graceSeconds)) }}
{{- range include "valetkey.ports" . | fromJsonArray }}
{{- $_ := set $set .listen (printf ":%d" (int .port)) }}
{{- end }}
{{- merge $set .Values.config | toYaml }}
{{- end }}
