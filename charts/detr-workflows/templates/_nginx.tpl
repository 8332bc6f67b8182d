{{/* The paths of the bridge, for a server of nginx. */}}
{{- define "detr-workflows.nginxLocations" -}}
{{- $nginx := .Values.cvatBridge.nginx -}}
{{- $inside := printf "http://%s.%s.svc.%s:8080" (include "detr-workflows.bridgeName" .) (include "detr-workflows.namespace" .) $nginx.clusterDomain -}}
location = /training-bridge {
    return 308 /training-bridge/$is_args$args;
}

location /training-bridge/ {
    {{- with $nginx.resolver }}
    # Looked up when somebody asks: CVAT starts and works where the bridge is away.
    resolver {{ . }} valid=30s;
    set $training_bridge {{ $nginx.upstream | default $inside }};
    proxy_pass $training_bridge;
    {{- else }}
    proxy_pass {{ $nginx.upstream | default $inside }};
    {{- end }}
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    # Of CVAT's cookies the session alone: nothing else is read.
    proxy_set_header Cookie "sessionid=$cookie_sessionid";
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header Connection "";
    proxy_connect_timeout 5s;
    proxy_read_timeout 60s;
    client_max_body_size 1m;
}
{{- end -}}

{{/*
A second file beside CVAT's own default.conf, which stays as it is: CVAT's server answers everything but the bridge's
paths, with its own headers.
*/}}
{{- define "detr-workflows.nginxBeside" -}}
# Adds the training bridge to CVAT's front end. Mount it as /etc/nginx/conf.d/training-bridge.conf: CVAT's own
# default.conf stays in use.

# For every page of CVAT: one more script.
sub_filter_once on;
sub_filter '</head>' '<script src="/training-bridge/plugin.js"></script></head>';

# Takes the requests of every host name, on the port of CVAT's own server. All but those to the bridge go on to that
# server, in the same nginx: the name below is the only one that this server does not take.
server {
    listen {{ .Values.cvatBridge.nginx.port }};
    server_name "~^(?!cvat-front-end$)";
    # The port here is not the one in the browser.
    absolute_redirect off;

    location / {
        proxy_pass http://127.0.0.1:{{ .Values.cvatBridge.nginx.port }};
        proxy_http_version 1.1;
        proxy_set_header Host cvat-front-end;
        proxy_set_header Connection "";
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_pass_header Server;
        # Large files are passed on as they are read, without a copy on the disk.
        proxy_max_temp_file_size 0;
        # CVAT's server has added the script already, and writes the log.
        sub_filter '<no page of CVAT has this>' '';
        access_log off;
    }
    {{- include "detr-workflows.nginxLocations" . | nindent 4 }}
}
{{- end -}}

{{- define "detr-workflows.nginxHeaders" -}}
add_header Cross-Origin-Opener-Policy "same-origin" always;
add_header Cross-Origin-Embedder-Policy "credentialless" always;
add_header X-Frame-Options "deny" always;
add_header Referrer-Policy "strict-origin-when-cross-origin" always;
add_header X-Content-Type-Options "nosniff" always;
{{- end -}}

{{/* A whole default.conf, which replaces that of CVAT's front end. For installations of earlier releases, which mount it. */}}
{{- define "detr-workflows.nginx" -}}
# CVAT's page, with one script more than the image has: the rest of the page is CVAT's own.
server {
    listen 8000;
    server_name _;
    root /usr/share/nginx/html;
    index index.html;
    server_tokens off;
    # The port here differs from the port in the browser.
    absolute_redirect off;

    gzip on;
    gzip_comp_level 5;
    gzip_min_length 1024;
    gzip_proxied any;
    gzip_types text/css text/javascript application/javascript application/json application/wasm image/svg+xml;

    # Each location sets CVAT's headers itself: the bridge's responses have headers of their own. CVAT computes in the
    # browser with shared memory, which needs the first two.
    location / {
        try_files $uri $uri/ /index.html;
        {{- include "detr-workflows.nginxHeaders" . | nindent 8 }}
    }

    # Every path of CVAT that is not a file.
    location = /index.html {
        # sub_filter needs an uncompressed page. A cached page could name an old version of the script.
        gzip off;
        sub_filter_once on;
        sub_filter '</head>' '<script src="/training-bridge/plugin.js"></script></head>';
        expires -1;
        {{- include "detr-workflows.nginxHeaders" . | nindent 8 }}
    }

    # nginx has no media type for modules, and browsers run no module of an unknown type.
    location ~ \.mjs$ {
        default_type application/javascript;
        try_files $uri =404;
        expires 30d;
        {{- include "detr-workflows.nginxHeaders" . | nindent 8 }}
    }

    location ~ \.map$ {
        return 404;
    }

    # File names change with their content. A missing file is a 404, never the page.
    location /assets/ {
        try_files $uri =404;
        expires 30d;
        {{- include "detr-workflows.nginxHeaders" . | nindent 8 }}
    }

    {{- include "detr-workflows.nginxLocations" . | nindent 4 }}
}
{{- end -}}
