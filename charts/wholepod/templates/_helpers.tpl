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

{{/* What the pods of both have in common. */}}
{{- define "wholepod.podSpec" -}}
# Never by itself: a scheduler that waits for itself waits forever.
schedulerName: default-scheduler
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "wholepod.fullname" . }}
  - name: tls
    secret:
      secretName: {{ include "wholepod.tlsSecretName" . }}
{{- end -}}

{{/* What their containers have in common; both serve at the port named https. */}}
{{- define "wholepod.container" -}}
image: {{ include "wholepod.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/wholepod/config, readOnly: true}
  - {name: tls, mountPath: /etc/wholepod/tls, readOnly: true}
startupProbe:
  httpGet: {path: /livez, port: https, scheme: HTTPS}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: https, scheme: HTTPS}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: https, scheme: HTTPS}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{- define "wholepod.extenderName" -}}
{{ include "wholepod.fullname" . }}-extender
{{- end -}}

{{/* The extender's configuration file: profiles of its own, the rest as the scheduler's. */}}
{{- define "wholepod.extenderConfiguration" -}}
{{- $configuration := include "wholepod.configuration" . | fromYaml -}}
{{- $_ := set $configuration "profiles" .Values.extender.profiles -}}
{{- $_ := set $configuration "clientConnection" .Values.extender.clientConnection -}}
{{- toYaml $configuration -}}
{{- end -}}

{{- define "wholepod.controllerName" -}}
{{ include "wholepod.fullname" . }}-controller
{{- end -}}

{{/* Authority, certificate and key, made once: an upgrade keeps them, or whoever trusts the authority by hand
     would have to begin anew. Rendered in several templates, it must be the same in all. */}}
{{- define "wholepod.certificate" -}}
{{- if not (hasKey .Values "certificate") -}}
{{- $known := lookup "v1" "Secret" .Release.Namespace (include "wholepod.tlsSecretName" .) -}}
{{- if $known -}}
{{- $_ := set .Values "certificate" (pick $known.data "ca.crt" "tls.crt" "tls.key") -}}
{{- else -}}
{{- $names := list -}}
{{- range list (include "wholepod.fullname" .) (include "wholepod.controllerName" .) -}}
{{- $names = append $names (printf "%s.%s.svc" . $.Release.Namespace) -}}
{{- end -}}
{{- $authority := genCA (include "wholepod.fullname" .) 3650 -}}
{{- $issued := genSignedCert (first $names) nil (append $names "localhost") 3650 $authority -}}
{{- $made := dict "ca.crt" (b64enc $authority.Cert) "tls.crt" (b64enc $issued.Cert) "tls.key" (b64enc $issued.Key) -}}
{{- $_ := set .Values "certificate" $made -}}
{{- end -}}
{{- end -}}
{{- toYaml .Values.certificate -}}
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
