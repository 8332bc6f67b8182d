{{/* What the schema cannot say: values that do not go together. Every mistake is one sentence. */}}

{{- define "detr-workflows.checks" -}}
{{- $values := .Values -}}
{{- if and $values.argo.required (not (.Capabilities.APIVersions.Has "argoproj.io/v1alpha1/WorkflowTemplate")) -}}
{{- fail "\n\nThis cluster has no Argo Workflows (no kind WorkflowTemplate): install Argo Workflows 3.6 or newer first, then this chart. For `helm template`, which knows no cluster, add --api-versions argoproj.io/v1alpha1/WorkflowTemplate or --set argo.required=false." -}}
{{- end -}}
{{- if not $values.store.bucket -}}
{{- fail "\n\nstore.bucket is missing: the name of the bucket that runs read from and write to." -}}
{{- end -}}
{{- $trial := $values.store.trialCredentials -}}
{{- if and $values.store.existingSecret $trial.accessKeyId -}}
{{- fail "\n\nstore.existingSecret and store.trialCredentials both say where the store's keys are: set one of them." -}}
{{- end -}}
{{- if ne (empty $trial.accessKeyId) (empty $trial.secretAccessKey) -}}
{{- fail "\n\nstore.trialCredentials needs both accessKeyId and secretAccessKey." -}}
{{- end -}}
{{- if and $values.store.useSDKCreds (include "detr-workflows.storeSecret" .) -}}
{{- fail "\n\nstore.useSDKCreds is for credentials without a secret: leave it false, or leave store.existingSecret and store.trialCredentials empty." -}}
{{- end -}}
{{- if and $values.store.caBundle.configMap (not $values.store.caBundle.argoSecret) (not $values.argo.artifactRepository.existingConfigMap) -}}
{{- fail "\n\nstore.caBundle.argoSecret is missing: Argo reads the certificates for its artifacts from a Secret; make one of the same file and name it here." -}}
{{- end -}}
{{- if and $values.webhook.existingSecret $values.webhook.trialUrl -}}
{{- fail "\n\nwebhook.existingSecret and webhook.trialUrl both say what is told: set one of them." -}}
{{- end -}}
{{- $names := list -}}
{{- range $values.nodePools -}}
{{- if has .name $names -}}
{{- fail (printf "\n\nnodePools: %s is there twice; every pool needs a name of its own." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- if and $values.test.pool (not (has $values.test.pool $names)) -}}
{{- fail (printf "\n\ntest.pool: there is no pool %s; nodePools has %s." $values.test.pool (join ", " $names | default "none")) -}}
{{- end -}}
{{- end -}}
