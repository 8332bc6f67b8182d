{{/* Values that the schema cannot check, because they contradict each other. Every error is one sentence. */}}

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
{{- fail "\n\nstore.caBundle.argoSecret is missing: Argo reads the certificates for its artifacts from a Secret; create one from the same file and name it here." -}}
{{- end -}}
{{- if and $values.webhook.existingSecret $values.webhook.trialUrl -}}
{{- fail "\n\nwebhook.existingSecret and webhook.trialUrl both set the webhook's URL: set one of them." -}}
{{- end -}}
{{- $names := list -}}
{{- range $values.nodePools -}}
{{- if has .name $names -}}
{{- fail (printf "\n\nnodePools: the name %s is used twice; give every pool its own name." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- if and $values.test.pool (not (has $values.test.pool $names)) -}}
{{- fail (printf "\n\ntest.pool: there is no pool %s; nodePools has %s." $values.test.pool (join ", " $names | default "none")) -}}
{{- end -}}
{{- if $values.cvatBridge.enabled -}}
{{- include "detr-workflows.bridgeChecks" (dict "values" $values "pools" $names) -}}
{{- end -}}
{{- end -}}

{{/* The same for the bridge to CVAT. Arguments: {values, pools}; pools: the names of the node pools. */}}
{{- define "detr-workflows.bridgeChecks" -}}
{{- $bridge := .values.cvatBridge -}}
{{- $models := $bridge.models -}}
{{- if not $bridge.cvat.url -}}
{{- fail "\n\ncvatBridge.cvat.url is missing: the URL of CVAT's server for pods, such as http://cvat-backend-service.cvat:8080." -}}
{{- end -}}
{{- if not $bridge.cvat.publicOrigin -}}
{{- fail "\n\ncvatBridge.cvat.publicOrigin is missing: the origin of CVAT in the browser, such as https://cvat.example.org." -}}
{{- end -}}
{{- $trial := $bridge.trialSecret -}}
{{- if and $bridge.existingSecret (or $trial.accessToken $trial.signingKey $trial.webhookSecret) -}}
{{- fail "\n\ncvatBridge.existingSecret and cvatBridge.trialSecret both say where the token and the keys are: set one of them." -}}
{{- end -}}
{{- if and (or $trial.accessToken $trial.signingKey $trial.webhookSecret) (not (and $trial.accessToken $trial.signingKey)) -}}
{{- fail "\n\ncvatBridge.trialSecret needs both accessToken and signingKey." -}}
{{- end -}}
{{- if and $trial.signingKey (lt (len $trial.signingKey) 16) -}}
{{- fail "\n\ncvatBridge.trialSecret.signingKey must have 16 characters or more: openssl rand -hex 32 makes one." -}}
{{- end -}}
{{- if and $bridge.triggers $trial.signingKey (not $trial.webhookSecret) -}}
{{- fail "\n\ncvatBridge.triggers need cvatBridge.trialSecret.webhookSecret: without it anybody could send events in CVAT's name." -}}
{{- end -}}
{{- $starts := list -}}
{{- range $bridge.triggers -}}
{{- $template := .template | default "cvat-train" -}}
{{- $event := .event -}}
{{- range .projects | default (list "any") -}}
{{- $start := printf "%s starts %s for project %v" $event $template . -}}
{{- if has $start $starts -}}
{{- fail (printf "\n\ncvatBridge.triggers: %s twice; remove one of the two." $start) -}}
{{- end -}}
{{- $starts = append $starts $start -}}
{{- end -}}
{{- end -}}
{{- if $models.enabled -}}
{{- if not $models.allowFrom.namespaceSelector -}}
{{- fail "\n\ncvatBridge.models.allowFrom.namespaceSelector is missing: the namespace of CVAT's pods, such as {matchLabels: {kubernetes.io/metadata.name: cvat}}. Whoever reaches the model server may use it." -}}
{{- end -}}
{{- if and $models.pool (not (has $models.pool .pools)) -}}
{{- fail (printf "\n\ncvatBridge.models.pool: there is no pool %s; nodePools has %s." $models.pool (join ", " .pools | default "none")) -}}
{{- end -}}
{{- if and (eq $models.device "cuda") .pools (not $models.pool) -}}
{{- fail (printf "\n\ncvatBridge.models.pool is missing: device cuda needs one of %s." (join ", " .pools)) -}}
{{- end -}}
{{- range .values.nodePools -}}
{{- if and (eq .name $models.pool) (eq $models.device "cuda") (eq (include "detr-workflows.gpuCount" . | int) 0) -}}
{{- fail (printf "\n\ncvatBridge.models.device is cuda, and the pool %s has no GPU: choose another pool, or cpu." .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
