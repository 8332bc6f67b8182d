{{/* nginx configuration of CVAT's front end: CVAT's page with one more script, and the route to the bridge. */}}
{{- define "detr-workflows.nginx" -}}
{{- $nginx := .Values.cvatBridge.nginx -}}
{{- $inside := printf "http://%s.%s.svc.%s:8080" (include "detr-workflows.bridgeName" .) (include "detr-workflows.namespace" .) $nginx.clusterDomain -}}
# CVAT's page with one more script. The rest of the page is unchanged.
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

    # CVAT uses shared memory in the browser, which requires the first two headers. They are set in each location,
    # because the bridge's responses have other headers.
    location / {
        try_files $uri $uri/ /index.html;
        add_header Cross-Origin-Opener-Policy "same-origin" always;
        add_header Cross-Origin-Embedder-Policy "credentialless" always;
        add_header X-Frame-Options "deny" always;
    }

    # Every path of CVAT that is not a file.
    location = /index.html {
        # sub_filter needs an uncompressed page. A cached page could name an old version of the script.
        gzip off;
        sub_filter_once on;
        sub_filter '</head>' '<script src="/training-bridge/plugin.js"></script></head>';
        expires -1;
        add_header Cross-Origin-Opener-Policy "same-origin" always;
        add_header Cross-Origin-Embedder-Policy "credentialless" always;
        add_header X-Frame-Options "deny" always;
    }

    # File names change with their content. A missing file is a 404, never the page.
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
        # Looked up at each request, so that CVAT starts and works without the bridge.
        resolver {{ . }} valid=30s;
        set $training_bridge {{ $nginx.upstream | default $inside }};
        proxy_pass $training_bridge;
        {{- else }}
        proxy_pass {{ $nginx.upstream | default $inside }};
        {{- end }}
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        # Pass only CVAT's session cookie; the bridge reads no other.
        proxy_set_header Cookie "sessionid=$cookie_sessionid";
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header Connection "";
        proxy_connect_timeout 5s;
        proxy_read_timeout 60s;
        client_max_body_size 1m;
    }
}
{{- end -}}
