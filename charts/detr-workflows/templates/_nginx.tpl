{{/* The configuration of CVAT's front end with the button: CVAT's page, one script more, and the way to the bridge. */}}
{{- define "detr-workflows.nginx" -}}
{{- $nginx := .Values.cvatBridge.nginx -}}
{{- $inside := printf "http://%s.%s.svc.%s:8080" (include "detr-workflows.bridgeName" .) (include "detr-workflows.namespace" .) $nginx.clusterDomain -}}
# CVAT's page, with one script more than the image has: the rest of the page is CVAT's own.
server {
    listen 8000;
    server_name _;
    root /usr/share/nginx/html;
    index index.html;
    server_tokens off;
    # The port here is not the one in the browser.
    absolute_redirect off;

    gzip on;
    gzip_comp_level 5;
    gzip_min_length 1024;
    gzip_proxied any;
    gzip_types text/css text/javascript application/javascript application/json application/wasm image/svg+xml;

    # CVAT computes in the browser with shared memory, which asks for the first two headers. They stand in each part:
    # the bridge's own answers have headers of their own.
    location / {
        try_files $uri $uri/ /index.html;
        add_header Cross-Origin-Opener-Policy "same-origin" always;
        add_header Cross-Origin-Embedder-Policy "credentialless" always;
        add_header X-Frame-Options "deny" always;
    }

    # Every address of CVAT's that is no file ends here.
    location = /index.html {
        # The filter below reads plain text, and a page that is kept would outlive the script's version.
        gzip off;
        sub_filter_once on;
        sub_filter '</head>' '<script src="/training-bridge/plugin.js"></script></head>';
        expires -1;
        add_header Cross-Origin-Opener-Policy "same-origin" always;
        add_header Cross-Origin-Embedder-Policy "credentialless" always;
        add_header X-Frame-Options "deny" always;
    }

    # Their names change with their content. What is missing is missing, and never the page.
    location /assets/ {
        try_files $uri =404;
        expires 30d;
        add_header Cross-Origin-Opener-Policy "same-origin" always;
        add_header Cross-Origin-Embedder-Policy "credentialless" always;
        add_header X-Frame-Options "deny" always;
    }

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
}
{{- end -}}
