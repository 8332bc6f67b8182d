{{/*
The parameters of a template: defaults and choices from the values, the pools and the store, in Argo's list and
in the form that the annotation holds. {context, manifest}; the manifest is changed in place.
*/}}
{{- define "detr-workflows.parameters" -}}
{{- $context := .context -}}
{{- $values := .context.Values -}}
{{- $form := get .manifest.metadata.annotations "detr-workflows/parameters" | fromJson -}}
{{- if hasKey $form "Error" -}}
{{- fail (printf "\n\n%s: the annotation detr-workflows/parameters is not JSON: %s" .manifest.metadata.name $form.Error) -}}
{{- end -}}
{{- $fields := dict -}}
{{- range $form.parameters -}}
{{- $_ := set $fields .name . -}}
{{- end -}}
{{- range $argument := .manifest.spec.arguments.parameters -}}
{{- $name := $argument.name -}}
{{- $field := get $fields $name -}}
{{- $given := get $values.parameters $name | default dict -}}
{{- if eq $name "store" -}}
{{- $given = dict "default" (include "detr-workflows.storeUrl" $context) -}}
{{- else if and (eq $name "sys-node-pool") $values.nodePools -}}
{{- $given = include "detr-workflows.poolParameter" $context | fromJson -}}
{{- $_ := set $argument "description" (printf "%s\n\n%s" $argument.description $given.titles) -}}
{{- else if and (eq $name "sys-node-pool") (or $given.default $given.enum) -}}
{{- fail (printf "\n\nparameters.sys-node-pool: nodePools is empty, so there is no pool %s." ($given.default | default (join ", " $given.enum))) -}}
{{- else if and (eq $name "gpu-count") $values.nodePools -}}
{{- $most := 0 -}}
{{- range $values.nodePools -}}
{{- $most = max $most (include "detr-workflows.gpuCount" . | int) -}}
{{- end -}}
{{- $_ := set $field "maximum" $most -}}
{{- if gt ($field.default | int) $most -}}
{{- $_ := set $argument "value" ($most | toString) -}}
{{- $_ := set $field "default" ($most | toString) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $given "enum" -}}
{{- $_ := set $argument "enum" $given.enum -}}
{{- $_ := set $field "choices" $given.enum -}}
{{- end -}}
{{- if hasKey $given "default" -}}
{{- $_ := set $argument "value" $given.default -}}
{{- $_ := set $field "default" $given.default -}}
{{- end -}}
{{- include "detr-workflows.checkDefault" (dict "argument" $argument "field" $field) -}}
{{- if and (eq $name "cvat-output-path") $values.store.writable -}}
{{- $path := $argument.value -}}
{{- $allowed := false -}}
{{- range $values.store.writable -}}
{{- $allowed = or $allowed (eq $path .) (hasPrefix (printf "%s/" .) $path) -}}
{{- end -}}
{{- if not $allowed -}}
{{- fail (printf "\n\nstore.writable: no run could write to the default of cvat-output-path, %s: add it, or set parameters.cvat-output-path.default to one of %s or below." $path (join ", " $values.store.writable)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set .manifest.metadata.annotations "detr-workflows/parameters" (toRawJson $form) -}}
{{- end -}}

{{/* Maximum number of GPUs that one run may request from a pool. */}}
{{- define "detr-workflows.gpuCount" -}}
{{- if hasKey . "gpuCount" }}{{ .gpuCount | int }}{{ else }}1{{ end -}}
{{- end -}}

{{/* Default, choices and their titles of sys-node-pool, as JSON. */}}
{{- define "detr-workflows.poolParameter" -}}
{{- $given := get .Values.parameters "sys-node-pool" | default dict -}}
{{- $pools := list -}}
{{- $titles := list -}}
{{- range .Values.nodePools -}}
{{- $pools = append $pools .name -}}
{{- $titles = append $titles (printf "- `%s`%s" .name (.title | default "" | empty | ternary "" (printf ": %s" (.title | default "")))) -}}
{{- end -}}
{{- $enum := $given.enum | default $pools -}}
{{- range $enum -}}
{{- if not (has . $pools) -}}
{{- fail (printf "\n\nparameters.sys-node-pool.enum: there is no pool %s; nodePools has %s." . (join ", " $pools)) -}}
{{- end -}}
{{- end -}}
{{- dict "default" ($given.default | default (first $enum)) "enum" $enum "titles" (join "\n" $titles) | toRawJson -}}
{{- end -}}

{{/* Refuse a default that the step `check` would refuse in every run: {argument, field}. */}}
{{- define "detr-workflows.checkDefault" -}}
{{- $field := .field -}}
{{- $name := .argument.name -}}
{{- $value := .argument.value | default "" -}}
{{- if and (hasKey .argument "value") (not (kindIs "string" $value)) -}}
{{- fail (printf "\n\nparameters.%s.default must be a string; write it in quotes." $name) -}}
{{- end -}}
{{- if contains "{{" $value -}}
{{- fail (printf "\n\nparameters.%s.default must not contain two braces: Argo would read it as a tag." $name) -}}
{{- end -}}
{{- if and (hasKey .argument "value") $field.required (not $value) -}}
{{- fail (printf "\n\nparameters.%s.default must not be empty." $name) -}}
{{- end -}}
{{- if and (hasKey .argument "enum") (hasKey .argument "value") (not (has $value .argument.enum)) -}}
{{- fail (printf "\n\nparameters.%s.default must be one of its choices (%s), not %q." $name (join ", " .argument.enum) $value) -}}
{{- end -}}
{{- if and $value (has $field.type (list "integer" "number")) -}}
{{- range (.argument.enum | default (list $value)) -}}
{{- $number := float64 . -}}
{{- $low := or (and (hasKey $field "minimum") (lt $number (float64 $field.minimum))) (and (hasKey $field "exclusiveMinimum") (le $number (float64 $field.exclusiveMinimum))) -}}
{{- if or $low (and (hasKey $field "maximum") (gt $number (float64 $field.maximum))) -}}
{{- $from := hasKey $field "minimum" | ternary (printf "at least %v" $field.minimum) (printf "above %v" $field.exclusiveMinimum) -}}
{{- fail (printf "\n\nparameters.%s: %s is out of bounds; it must be %s and at most %v." $name . $from $field.maximum) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
