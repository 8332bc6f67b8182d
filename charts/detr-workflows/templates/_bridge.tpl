{{/* The bridge to CVAT: names, settings, and the fields that its pods share. */}}

{{- define "detr-workflows.bridgeName" -}}
{{- include "detr-workflows.fullname" . }}-bridge
{{- end -}}

{{- define "detr-workflows.modelsName" -}}
{{- include "detr-workflows.fullname" . }}-models
{{- end -}}

{{- define "detr-workflows.bridgeServiceAccount" -}}
{{- .Values.cvatBridge.serviceAccount.name | default (include "detr-workflows.bridgeName" .) -}}
{{- end -}}

{{/* The secret with CVAT's token, the signing key and the webhooks' secret. It may not exist yet; the program that reads it reports that. */}}
{{- define "detr-workflows.cvatSecret" -}}
{{- .Values.cvatBridge.existingSecret | default (printf "%s-cvat" (include "detr-workflows.fullname" .)) -}}
{{- end -}}

{{/* Labels by which the pods of a Deployment are found: {context, component}. They never change. */}}
{{- define "detr-workflows.selector" -}}
app.kubernetes.io/name: {{ include "detr-workflows.name" .context | quote }}
app.kubernetes.io/instance: {{ .context.Release.Name | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* bridge.yaml, as cvat_client.settings reads it. */}}
{{- define "detr-workflows.bridgeSettings" -}}
{{- $bridge := .Values.cvatBridge -}}
{{- $cvat := dict "url" ($bridge.cvat.url | trimSuffix "/") "publicOrigin" $bridge.cvat.publicOrigin "organization" $bridge.cvat.organization "doneJobs" $bridge.cvat.doneJobs -}}
{{- with $bridge.cvat.cloudStorageId -}}
{{- $_ := set $cvat "cloudStorageId" (int .) -}}
{{- end -}}
{{- with $bridge.cvat.ca.configMap -}}
{{- $_ := set $cvat "caFile" (printf "/etc/cvat-ca/%s" $bridge.cvat.ca.key) -}}
{{- end -}}
{{- $settings := dict
  "version" 1
  "cvat" $cvat
  "links" $bridge.links
  "exports" (dict "prefix" $bridge.exports.prefix "saveForS" (int $bridge.exports.saveForS) "longestS" (int $bridge.exports.longestS))
  "limits" (dict "runsPerUser" (int $bridge.limits.runsPerUser) "runsOfEvents" (int $bridge.limits.runsOfEvents) "requestBytes" (int $bridge.limits.requestBytes) "submissionsPerMinute" (int $bridge.limits.submissionsPerMinute))
  "grants" (dict "lifetimeS" (int $bridge.grants.lifetimeS) "acceptExpired" $bridge.grants.acceptExpired)
  "controls" $bridge.controls
  "triggers" $bridge.triggers
  "models" (dict "threshold" $bridge.models.threshold "most" (int $bridge.models.most) "loaded" (int $bridge.models.loaded) "nuclio" $bridge.models.nuclio)
-}}
{{- toYaml $settings -}}
{{- end -}}

{{/* Volumes of both services: {context, role}. */}}
{{- define "detr-workflows.serviceVolumes" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $fullname := include "detr-workflows.fullname" $context -}}
{{- $file := dict "key" "settings.yaml" "path" "settings.yaml" -}}
{{- $bridgeFile := dict "key" "bridge.yaml" "path" "bridge.yaml" -}}
{{- $volumes := list
  (dict "name" "tmp" "emptyDir" (dict))
  (dict "name" "settings" "configMap" (dict "name" $fullname "items" (list $file)))
  (dict "name" "bridge" "configMap" (dict "name" (include "detr-workflows.bridgeName" $context) "items" (list $bridgeFile)))
-}}
{{- with $values.store.caBundle -}}
{{- if .configMap -}}
{{- $volumes = append $volumes (dict "name" "store-ca" "configMap" (dict "name" .configMap "items" (list (dict "key" .key "path" .key)))) -}}
{{- end -}}
{{- end -}}
{{- if eq .role "bridge" -}}
{{- with $values.cvatBridge.cvat.ca -}}
{{- if .configMap -}}
{{- $volumes = append $volumes (dict "name" "cvat-ca" "configMap" (dict "name" .configMap "items" (list (dict "key" .key "path" .key)))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- concat $volumes (include "detr-workflows.roleList" (dict "context" $context "role" .role "key" "extraVolumes") | fromJsonArray) | toYaml -}}
{{- end -}}

{{/* Where those volumes are mounted: {context, role}. */}}
{{- define "detr-workflows.serviceMounts" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $mounts := list
  (dict "name" "tmp" "mountPath" "/tmp")
  (dict "name" "settings" "mountPath" "/etc/detr-workflows" "readOnly" true)
  (dict "name" "bridge" "mountPath" "/etc/cvat-bridge" "readOnly" true)
-}}
{{- if $values.store.caBundle.configMap -}}
{{- $mounts = append $mounts (dict "name" "store-ca" "mountPath" "/etc/detr-workflows-ca" "readOnly" true) -}}
{{- end -}}
{{- if and (eq .role "bridge") $values.cvatBridge.cvat.ca.configMap -}}
{{- $mounts = append $mounts (dict "name" "cvat-ca" "mountPath" "/etc/cvat-ca" "readOnly" true) -}}
{{- end -}}
{{- concat $mounts (include "detr-workflows.roleList" (dict "context" $context "role" .role "key" "extraVolumeMounts") | fromJsonArray) | toYaml -}}
{{- end -}}

{{/* The environment of a service, without its own secrets: {context, role}. */}}
{{- define "detr-workflows.serviceEnvironment" -}}
- name: DETR_WORKFLOWS_SETTINGS
  value: /etc/detr-workflows/settings.yaml
- name: CVAT_BRIDGE_SETTINGS
  value: /etc/cvat-bridge/bridge.yaml
{{- $secret := include "detr-workflows.storeSecret" .context }}
{{- if eq .role "models" }}
{{- $secret = .context.Values.cvatBridge.models.storeSecret | default $secret }}
{{- end }}
{{- with include "detr-workflows.storeEnvironment" (dict "context" .context "secret" $secret) | fromYamlArray }}
{{ toYaml . }}
{{- end }}
{{- with (get .context.Values.roles .role).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Placement and security context of a service's pod: {context, role, selector, tolerations}. */}}
{{- define "detr-workflows.servicePod" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $role := get $values.roles .role -}}
securityContext:
  {{- toYaml $values.pods.podSecurityContext | nindent 2 }}
{{- with include "detr-workflows.pullSecrets" $context | fromJsonArray }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with merge (dict) (.selector | default dict) ($role.nodeSelector | default dict) $values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (.tolerations | default list) (include "detr-workflows.roleList" (dict "context" $context "role" .role "key" "tolerations") | fromJsonArray) | uniq }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range list "affinity" "topologySpreadConstraints" "priorityClassName" "runtimeClassName" }}
{{- $key := . }}
{{- with get $role $key | default (get $values.pods $key) }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Labels of a service's pods: {context, component}. */}}
{{- define "detr-workflows.servicePodLabels" -}}
{{- $selector := include "detr-workflows.selector" . | fromYaml -}}
{{- merge (dict) $selector (dict "app.kubernetes.io/part-of" "detr-workflows") .context.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* The host in the browser's address bar, without a port. */}}
{{- define "detr-workflows.cvatHost" -}}
{{- regexReplaceAll "^https?://([^/:]+).*$" .Values.cvatBridge.cvat.publicOrigin "${1}" -}}
{{- end -}}
