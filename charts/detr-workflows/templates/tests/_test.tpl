{{/* The fields that both pods of the test have. */}}
{{- define "detr-workflows.testPod" -}}
restartPolicy: Never
securityContext:
  {{- toYaml .Values.pods.podSecurityContext | nindent 2 }}
{{- with include "detr-workflows.pullSecrets" . | fromJsonArray }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.pods.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The environment with the store's URL and keys, for a container that is not a step: {context, secret}; secret: the name of the secret, or empty. */}}
{{- define "detr-workflows.storeEnvironment" -}}
{{- $values := .context.Values -}}
{{- $environment := list -}}
{{- with $values.store.endpoint -}}
{{- $environment = append $environment (dict "name" "AWS_ENDPOINT_URL" "value" .) -}}
{{- end -}}
{{- with $values.store.region -}}
{{- $environment = append $environment (dict "name" "AWS_REGION" "value" .) -}}
{{- end -}}
{{- with .secret -}}
{{- $keys := $values.store.secretKeys -}}
{{- $secret := . -}}
{{- range $name, $key := dict "AWS_ACCESS_KEY_ID" $keys.accessKeyId "AWS_SECRET_ACCESS_KEY" $keys.secretAccessKey "AWS_SESSION_TOKEN" $keys.sessionToken -}}
{{- $environment = append $environment (dict "name" $name "valueFrom" (dict "secretKeyRef" (dict "name" $secret "key" $key "optional" (eq $name "AWS_SESSION_TOKEN")))) -}}
{{- end -}}
{{- end -}}
{{- with $values.store.caBundle -}}
{{- if .configMap -}}
{{- $environment = append $environment (dict "name" "AWS_CA_BUNDLE" "value" (printf "/etc/detr-workflows-ca/%s" .key)) -}}
{{- end -}}
{{- end -}}
{{- concat $environment $values.pods.extraEnv | toYaml -}}
{{- end -}}
