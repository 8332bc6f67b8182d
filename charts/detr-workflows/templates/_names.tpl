{{/* Names, labels and images. */}}

{{- define "detr-workflows.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* A namespace has one installation. Names do not contain the release's name, so that people and scripts know them. */}}
{{- define "detr-workflows.fullname" -}}
{{- .Values.fullnameOverride | default (include "detr-workflows.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "detr-workflows.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{- define "detr-workflows.labels" -}}
app.kubernetes.io/name: {{ include "detr-workflows.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: detr-workflows
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: {context, name, labels, annotations}. */}}
{{- define "detr-workflows.metadata" -}}
name: {{ .name | quote }}
namespace: {{ include "detr-workflows.namespace" .context | quote }}
labels:
  {{- merge (dict) (.labels | default dict) (include "detr-workflows.labels" .context | fromYaml) | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .context.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "detr-workflows.tellServiceAccount" -}}
{{- if and .Values.workflow.failureMessage .Values.rbac.create .Values.serviceAccounts.workflow.create -}}
{{- printf "%s-tell" (include "detr-workflows.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "detr-workflows.workflowServiceAccount" -}}
{{- .Values.serviceAccounts.workflow.name | default (include "detr-workflows.fullname" .) -}}
{{- end -}}

{{/* The workflow that brings the weights of weights.pull. */}}
{{- define "detr-workflows.weightsWorkflow" -}}
{{- printf "%s-weights" (include "detr-workflows.fullname" .) -}}
{{- end -}}

{{/* The account of the template that writes weights: its own, or that of all other runs. */}}
{{- define "detr-workflows.weightsServiceAccount" -}}
{{- $account := .Values.serviceAccounts.weights -}}
{{- if or $account.name (not $account.create) -}}
{{- $account.name | default (include "detr-workflows.workflowServiceAccount" .) -}}
{{- else -}}
{{- printf "%s-weights" (include "detr-workflows.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "detr-workflows.clientServiceAccount" -}}
{{- .Values.serviceAccounts.client.name | default (printf "%s-client" (include "detr-workflows.fullname" .)) -}}
{{- end -}}

{{/* The secret with the store's keys. Empty: credentials come from elsewhere. */}}
{{- define "detr-workflows.storeSecret" -}}
{{- if .Values.store.existingSecret -}}
{{- .Values.store.existingSecret -}}
{{- else if .Values.store.trialCredentials.accessKeyId -}}
{{- include "detr-workflows.fullname" . }}-store
{{- end -}}
{{- end -}}

{{/* The secret with the webhook's URL. Empty: there is no webhook. */}}
{{- define "detr-workflows.webhookSecret" -}}
{{- if .Values.webhook.existingSecret -}}
{{- .Values.webhook.existingSecret -}}
{{- else if .Values.webhook.trialUrl -}}
{{- include "detr-workflows.fullname" . }}-webhook
{{- end -}}
{{- end -}}

{{/* The configured name of a secret's key, from its name in the rendered templates: {context, key}. */}}
{{- define "detr-workflows.secretKey" -}}
{{- $keys := .context.Values.store.secretKeys -}}
{{- $cvat := .context.Values.cvatBridge.secretKeys -}}
{{- get (dict "access-key-id" $keys.accessKeyId "secret-access-key" $keys.secretAccessKey "session-token" $keys.sessionToken "url" .context.Values.webhook.key "access-token" $cvat.accessToken "signing-key" $cvat.signingKey) .key -}}
{{- end -}}

{{- define "detr-workflows.storeUrl" -}}
s3://{{ .Values.store.bucket }}{{ with .Values.store.prefix }}/{{ . }}{{ end }}
{{- end -}}

{{/* The address of an image: {context, image}; image: an entry of the value `images`. A digest wins over the tag. */}}
{{- define "detr-workflows.image" -}}
{{- $registry := .context.Values.global.imageRegistry | default .context.Values.images.registry -}}
{{- with $registry -}}{{ . | trimSuffix "/" }}/{{- end -}}
{{- .image.repository -}}:{{- .image.tag | default .context.Chart.AppVersion -}}
{{- with .image.digest -}}@{{ . }}{{- end -}}
{{- end -}}

{{/* A list of {name} for imagePullSecrets, as JSON. */}}
{{- define "detr-workflows.pullSecrets" -}}
{{- $secrets := list -}}
{{- range concat .Values.global.imagePullSecrets .Values.images.pullSecrets | uniq -}}
{{- $secrets = append $secrets (dict "name" .) -}}
{{- end -}}
{{- toJson $secrets -}}
{{- end -}}
