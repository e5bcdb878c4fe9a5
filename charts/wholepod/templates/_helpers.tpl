{{- define "wholepod.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "wholepod.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "wholepod.labels" -}}
{{ include "wholepod.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "wholepod.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "wholepod.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: which account to use is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "wholepod.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "wholepod.tlsSecretName" -}}
{{- default (printf "%s-tls" (include "wholepod.fullname" .)) .Values.serving.tls.secretName -}}
{{- end -}}

{{/* The configuration file: what the user says, and what follows from how the chart runs it. */}}
{{- define "wholepod.configuration" -}}
{{- $configuration := deepCopy .Values.configuration -}}
{{- $_ := set $configuration "apiVersion" "wholepod.io/v1alpha1" -}}
{{- $_ := set $configuration "kind" "SchedulerConfiguration" -}}
{{- $_ := set $configuration "bindAddress" (printf "0.0.0.0:%v" .Values.serving.port) -}}
{{- $_ := set $configuration "authorization" .Values.serving.authorization -}}
{{- $_ := set $configuration "tls" (dict "certFile" "/etc/wholepod/tls/tls.crt" "keyFile" "/etc/wholepod/tls/tls.key") -}}
{{- $_ := set $configuration.leaderElection "resourceName" (include "wholepod.fullname" .) -}}
{{- $_ := set $configuration.leaderElection "resourceNamespace" .Release.Namespace -}}
{{- toYaml $configuration -}}
{{- end -}}
