{{/*
What the installation adds to a rendered workflow template. Helm never parses the files themselves, so that Argo's
tags stay as they are; the helpers here change the mapping that a file was read into.
*/}}

{{/* An Argo expression that selects a pool's value by the pool's name: {pools, key, default}. Its result never contains user input. */}}
{{- define "detr-workflows.poolExpression" -}}
{{- $key := .key -}}
{{- $default := .default -}}
{{- $parts := list -}}
{{- range .pools -}}
{{- $parts = append $parts (printf "workflow.parameters['sys-node-pool'] == '%s' ? '%s'" .name (get . $key | default $default)) -}}
{{- end -}}
{{- printf "{{=%s : ''}}" (join " : " $parts) -}}
{{- end -}}

{{/* A list of `pods`, followed by that of the role, as JSON: {context, role, key}. */}}
{{- define "detr-workflows.roleList" -}}
{{- $role := get .context.Values.roles .role -}}
{{- concat (get .context.Values.pods .key | default list) (get $role .key | default list) | toJson -}}
{{- end -}}

{{/* The whole of a WorkflowTemplate: {context, manifest}. */}}
{{- define "detr-workflows.workflowTemplate" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $manifest := .manifest -}}
{{- $metadata := $manifest.metadata -}}
{{- $spec := $manifest.spec -}}
{{- $fullname := include "detr-workflows.fullname" $context -}}
{{- $instance := dict -}}
{{- with $values.argo.instanceID -}}
{{- $_ := set $instance "workflows.argoproj.io/controller-instanceid" . -}}
{{- end -}}

{{- include "detr-workflows.parameters" . -}}

{{- $_ := set $metadata "namespace" (include "detr-workflows.namespace" $context) -}}
{{- $_ := set $metadata "labels" (merge (dict) $metadata.labels $instance (include "detr-workflows.labels" $context | fromYaml)) -}}
{{- $_ := set $metadata "annotations" (merge (dict) $metadata.annotations $values.commonAnnotations) -}}

{{- $_ := set $spec.workflowMetadata "labels" (merge (dict) $spec.workflowMetadata.labels $instance $values.workflow.labels $values.commonLabels) -}}
{{- $_ := set $spec.workflowMetadata "annotations" (merge (dict) $spec.workflowMetadata.annotations $values.workflow.annotations $values.commonAnnotations) -}}
{{- $_ := set $spec.podMetadata "labels" (merge (dict) $spec.podMetadata.labels $values.pods.labels $values.commonLabels) -}}
{{- with merge (dict) ($spec.podMetadata.annotations | default dict) $values.pods.annotations -}}
{{- $_ := set $spec.podMetadata "annotations" . -}}
{{- end -}}

{{- $account := eq $metadata.name "detr-weights" | ternary "weights" "workflow" -}}
{{- $_ := set $spec "serviceAccountName" (include (printf "detr-workflows.%sServiceAccount" $account) $context) -}}
{{- $_ := set $spec.artifactRepositoryRef "configMap" ($values.argo.artifactRepository.existingConfigMap | default $fullname) -}}
{{- $_ := set $spec.artifactRepositoryRef "key" $values.argo.artifactRepository.key -}}
{{- $_ := set $spec "securityContext" $values.pods.podSecurityContext -}}
{{- $_ := set $spec "ttlStrategy" $values.workflow.ttl -}}
{{- $_ := set $spec "podGC" $values.workflow.podGC -}}
{{- with $values.workflow.parallelism -}}
{{- $_ := set $spec "parallelism" (int .) -}}
{{- end -}}
{{- with $values.workflow.priority -}}
{{- $_ := set $spec "priority" (int .) -}}
{{- end -}}
{{- with include "detr-workflows.pullSecrets" $context | fromJsonArray -}}
{{- $_ := set $spec "imagePullSecrets" . -}}
{{- end -}}

{{- $patch := include "detr-workflows.executorPatch" (dict "context" $context "patch" ($spec.podSpecPatch | fromYaml)) | fromYaml -}}
{{- $_ := set $spec "podSpecPatch" (toPrettyJson $patch) -}}

{{- range $spec.templates -}}
{{- if hasKey . "container" -}}
{{- include "detr-workflows.step" (dict "context" $context "template" .) -}}
{{- end -}}
{{- end -}}
{{- toYaml $manifest -}}
{{- end -}}

{{/* The patch for Argo's own containers, as YAML: {context, patch}; patch: the rendered one. */}}
{{- define "detr-workflows.executorPatch" -}}
{{- $values := .context.Values -}}
{{- if $values.argo.patchExecutor -}}
{{- range concat .patch.initContainers .patch.containers -}}
{{- $_ := set . "securityContext" $values.pods.containerSecurityContext -}}
{{- $_ := set . "resources" $values.argo.executor.resources -}}
{{- end -}}
{{- toYaml .patch -}}
{{- else -}}
{{- /* The executor uses the pod's token, which must be mounted. The workflow's field of this name only accepts false. */ -}}
{{- toYaml (dict "automountServiceAccountToken" true) -}}
{{- end -}}
{{- end -}}

{{/* One step: {context, template}. */}}
{{- define "detr-workflows.step" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $template := .template -}}
{{- $container := .template.container -}}
{{- $role := get $template.metadata.labels "app.kubernetes.io/component" -}}
{{- $roleValues := get $values.roles $role -}}
{{- if not $roleValues -}}
{{- fail (printf "\n\nfiles/workflows: the step %s has the role %q, which `roles` does not know." $template.name $role) -}}
{{- end -}}

{{- $known := dict "cpu-steps" $values.images.cpuSteps "detr-job" $values.images.detrJob "cvat-bridge" $values.images.cvatBridge -}}
{{- $image := get $known (regexReplaceAll "^(?:.*/)?([^/:@]+)(?:[:@].*)?$" $container.image "${1}") -}}
{{- if not $image -}}
{{- fail (printf "\n\nfiles/workflows: the step %s has the image %s, which `images` does not know." $template.name $container.image) -}}
{{- end -}}
{{- $_ := set $container "image" (include "detr-workflows.image" (dict "context" $context "image" $image)) -}}
{{- $_ := set $container "imagePullPolicy" $values.images.pullPolicy -}}
{{- $_ := set $container "resources" $roleValues.resources -}}
{{- $_ := set $container "securityContext" $values.pods.containerSecurityContext -}}
{{- if eq $role "tell" -}}
{{- $account := include "detr-workflows.tellServiceAccount" $context -}}
{{- if $account -}}
{{- $_ := set $template "serviceAccountName" $account -}}
{{- else -}}
{{- $_ := unset $template "serviceAccountName" -}}
{{- end -}}
{{- if not (and $account $values.argo.patchExecutor) -}}
{{- $_ := unset $template "podSpecPatch" -}}
{{- end -}}
{{- /* A step that other workflows call by templateRef does not inherit these from their workflow. */ -}}
{{- else if hasKey $template "serviceAccountName" -}}
{{- $_ := set $template "serviceAccountName" (include "detr-workflows.workflowServiceAccount" $context) -}}
{{- $_ := set $template "securityContext" $values.pods.podSecurityContext -}}
{{- end -}}
{{- include "detr-workflows.stepEnvironment" (dict "context" $context "container" $container "role" $role) -}}
{{- include "detr-workflows.stepVolumes" (dict "context" $context "template" $template "role" $role) -}}
{{- include "detr-workflows.stepPlacement" (dict "context" $context "template" $template "role" $role) -}}

{{- if hasKey $template "retryStrategy" -}}
{{- $_ := set $template.retryStrategy "limit" (printf "%d" (int $roleValues.retryLimit)) -}}
{{- $_ := set $template.retryStrategy "backoff" (dict "duration" $values.workflow.backoff.duration "factor" (printf "%d" (int $values.workflow.backoff.factor)) "cap" $values.workflow.backoff.cap) -}}
{{- end -}}
{{- if not $values.workflow.archiveLogs -}}
{{- $_ := set $template "archiveLocation" (dict "archiveLogs" false) -}}
{{- end -}}
{{- with $values.store.prefix -}}
{{- $prefix := . -}}
{{- range concat (dig "outputs" "artifacts" list $template) (dig "inputs" "artifacts" list $template) -}}
{{- if and .s3 .s3.key -}}
{{- $_ := set .s3 "key" (printf "%s/%s" $prefix .s3.key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The environment of a step: {context, container, role}. */}}
{{- define "detr-workflows.stepEnvironment" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $container := .container -}}
{{- $store := include "detr-workflows.storeSecret" $context -}}
{{- if eq .role "weights" -}}
{{- $store = $values.weights.storeSecret | default $store -}}
{{- end -}}
{{- $secrets := dict "detr-workflows-store" $store "detr-workflows-webhook" (include "detr-workflows.webhookSecret" $context) "detr-workflows-cvat" (include "detr-workflows.cvatSecret" $context) -}}
{{- $environment := list -}}
{{- range $container.env -}}
{{- $secret := dig "valueFrom" "secretKeyRef" dict . -}}
{{- $map := dig "valueFrom" "configMapKeyRef" dict . -}}
{{- if $secret -}}
{{- if not (hasKey $secrets $secret.name) -}}
{{- fail (printf "\n\nfiles/workflows: the variable %s comes from the secret %s, which the chart does not know." .name $secret.name) -}}
{{- end -}}
{{- /* If credentials come from elsewhere, a variable would override them. */ -}}
{{- if get $secrets $secret.name -}}
{{- $_ := set $secret "name" (get $secrets $secret.name) -}}
{{- $_ := set $secret "key" (include "detr-workflows.secretKey" (dict "context" $context "key" $secret.key)) -}}
{{- $environment = append $environment . -}}
{{- end -}}
{{- else -}}
{{- if $map -}}
{{- $_ := set $map "name" (include "detr-workflows.fullname" $context) -}}
{{- else if eq .name "IMAGE_DIGEST" -}}
{{- $_ := set . "value" $container.image -}}
{{- end -}}
{{- $environment = append $environment . -}}
{{- end -}}
{{- end -}}
{{- if $values.store.caBundle.configMap -}}
{{- $environment = append $environment (dict "name" "AWS_CA_BUNDLE" "value" (printf "/etc/detr-workflows-ca/%s" $values.store.caBundle.key)) -}}
{{- end -}}
{{- $extra := include "detr-workflows.roleList" (dict "context" $context "role" .role "key" "extraEnv") | fromJsonArray -}}
{{- $_ := set $container "env" (concat $environment $extra) -}}
{{- with include "detr-workflows.roleList" (dict "context" $context "role" .role "key" "extraEnvFrom") | fromJsonArray -}}
{{- $_ := set $container "envFrom" (concat ($container.envFrom | default list) .) -}}
{{- end -}}
{{- end -}}

{{/* The volumes of a step and their mounts: {context, template, role}. */}}
{{- define "detr-workflows.stepVolumes" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $template := .template -}}
{{- $role := get $values.roles .role -}}
{{- $volumes := list -}}
{{- $mounts := $template.container.volumeMounts -}}
{{- range $template.volumes -}}
{{- if eq .name "bridge" -}}
{{- $_ := set .configMap "name" (include "detr-workflows.bridgeName" $context) -}}
{{- with $values.cvatBridge.cvat.ca -}}
{{- if .configMap -}}
{{- $volumes = append $volumes (dict "name" "cvat-ca" "configMap" (dict "name" .configMap "items" (list (dict "key" .key "path" .key)))) -}}
{{- $mounts = append $mounts (dict "name" "cvat-ca" "mountPath" "/etc/cvat-ca" "readOnly" true) -}}
{{- end -}}
{{- end -}}
{{- else if hasKey . "configMap" -}}
{{- $_ := set .configMap "name" (include "detr-workflows.fullname" $context) -}}
{{- else if and (eq .name "shm") $role.sharedMemory -}}
{{- $_ := set .emptyDir "sizeLimit" $role.sharedMemory -}}
{{- end -}}
{{- $volumes = append $volumes . -}}
{{- end -}}
{{- with $values.store.caBundle -}}
{{- if .configMap -}}
{{- $volumes = append $volumes (dict "name" "store-ca" "configMap" (dict "name" .configMap "items" (list (dict "key" .key "path" .key)))) -}}
{{- $mounts = append $mounts (dict "name" "store-ca" "mountPath" "/etc/detr-workflows-ca" "readOnly" true) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $template "volumes" (concat $volumes (include "detr-workflows.roleList" (dict "context" $context "role" .role "key" "extraVolumes") | fromJsonArray)) -}}
{{- $_ := set $template.container "volumeMounts" (concat $mounts (include "detr-workflows.roleList" (dict "context" $context "role" .role "key" "extraVolumeMounts") | fromJsonArray)) -}}
{{- end -}}

{{/* Placement of a step's pod, and the patch for fields that a template does not have: {context, template, role}. */}}
{{- define "detr-workflows.stepPlacement" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $template := .template -}}
{{- $role := get $values.roles .role -}}
{{- $patch := dict -}}
{{- with $template.podSpecPatch -}}
{{- $patch = fromYaml . -}}
{{- if hasKey $patch "Error" -}}
{{- fail (printf "\n\nfiles/workflows: the patch of the step %s is not YAML: %s" $template.name $patch.Error) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $patch "initContainers" -}}
{{- $patch = include "detr-workflows.executorPatch" (dict "context" $context "patch" $patch) | fromYaml -}}
{{- end -}}
{{- $selector := merge (dict) ($template.nodeSelector | default dict) ($role.nodeSelector | default dict) $values.pods.nodeSelector -}}
{{- $tolerations := $template.tolerations | default list -}}

{{- if eq .role "train" -}}
{{- $_ := set $patch "terminationGracePeriodSeconds" (int $values.workflow.terminationGracePeriodSeconds) -}}
{{- with $values.nodePools -}}
{{- $_ := set $selector $values.nodePoolLabel (include "detr-workflows.poolExpression" (dict "pools" . "key" "labelValue" "default" "")) -}}
{{- $main := first $patch.containers -}}
{{- $count := first (values $main.resources.limits) -}}
{{- $_ := set $main.resources "limits" (dict (include "detr-workflows.poolExpression" (dict "pools" . "key" "gpuResource" "default" "nvidia.com/gpu")) $count) -}}
{{- $limited := false -}}
{{- range . -}}
{{- $limited = or $limited (hasKey . "limit") -}}
{{- $tolerations = concat $tolerations (.tolerations | default list) -}}
{{- end -}}
{{- if $limited -}}
{{- $_ := set $template "synchronization" (dict "semaphores" (list (dict "configMapKeyRef" (dict "name" (include "detr-workflows.fullname" $context) "key" "pool.{{workflow.parameters.sys-node-pool}}")))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $tolerations = concat $tolerations (include "detr-workflows.roleList" (dict "context" $context "role" .role "key" "tolerations") | fromJsonArray) -}}
{{- with $tolerations -}}
{{- $_ := set $template "tolerations" (uniq .) -}}
{{- end -}}
{{- with $selector -}}
{{- $_ := set $template "nodeSelector" . -}}
{{- end -}}
{{- range list "affinity" "priorityClassName" -}}
{{- $key := . -}}
{{- with get $role $key | default (get $values.pods $key) -}}
{{- $_ := set $template $key . -}}
{{- end -}}
{{- end -}}
{{- range list "runtimeClassName" "topologySpreadConstraints" -}}
{{- $key := . -}}
{{- with get $role $key | default (get $values.pods $key) -}}
{{- $_ := set $patch $key . -}}
{{- end -}}
{{- end -}}
{{- with $patch -}}
{{- $_ := set $template "podSpecPatch" (toPrettyJson .) -}}
{{- end -}}
{{- end -}}
