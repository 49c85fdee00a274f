#!/usr/bin/env bash
# compose-secrets.sh [NAME…]: makes the secrets of deploy/compose.yaml that are not there yet, in deploy/secrets or $UNMASK_SECRETS.
# NAME…: what callers know the gRPC server by (default: localhost 127.0.0.1). Run it again after removing a file to renew that one.
set -euo pipefail
umask 077
cd "$(dirname "$0")"
folder="${UNMASK_SECRETS:-./secrets}"
names=("${@:-localhost}")
[[ $# -gt 0 ]] || names+=(127.0.0.1)
command -v openssl >/dev/null || { echo "compose-secrets: openssl is needed" >&2; exit 2; }
mkdir -p "$folder"
chmod 700 "$folder" # the files in it are readable by the users that containers run as, and this folder by nobody else
cd "$folder"

made=()
keep() { # keep FILE: writes standard input there, unless it is there
    if [[ -s "$1" ]]; then cat >/dev/null; return; fi
    cat >"$1.new" && chmod 644 "$1.new" && mv "$1.new" "$1"
    made+=("$1")
}
random() { openssl rand -hex 24; }

keep postgres_password < <(random)
keep database < <(printf 'postgresql://unmask:%s@postgres/unmask' "$(<postgres_password)")
keep broker < <(printf 'amqp://unmask:%s@rabbitmq:5672/' "$(random)")
password="$(sed -E 's|.*unmask:([^@]+)@.*|\1|' broker)"
keep rabbitmq_user.conf < <(printf 'default_user = unmask\ndefault_pass = %s\n' "$password")
keep s3_access_key < <(openssl rand -hex 10)
keep s3_secret_key < <(random)
keep s3_identities.json < <(printf '{"identities": [{"name": "unmask", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}\n' \
    "$(<s3_access_key)" "$(<s3_secret_key)")
keep webhook_keys < <(openssl rand -hex 32)
keep grafana_admin_password < <(random)

if [[ ! -s tls_certificate.pem || ! -s tls_key.pem ]]; then
    # An authority of its own, whose key is not kept; callers trust tls_ca.pem. Yours goes in as tls_certificate.pem and tls_key.pem.
    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    for name in "${names[@]}"; do
        if [[ "$name" =~ ^[0-9.]+$|: ]]; then alt+="${alt:+,}IP:$name"; else alt+="${alt:+,}DNS:$name"; fi
    done
    key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
    openssl req -x509 "${key[@]}" -keyout "$work/ca.key" -out "$work/ca.pem" -days 365 -subj "/O=Unmask/CN=Unmask authority" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
    openssl req "${key[@]}" -keyout "$work/server.key" -out "$work/server.csr" -subj "/O=Unmask/CN=${names[0]}" 2>/dev/null
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$alt" >"$work/extensions"
    openssl x509 -req -in "$work/server.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 365 \
        -extfile "$work/extensions" -out "$work/server.pem" 2>/dev/null
    rm -f tls_ca.pem tls_certificate.pem tls_key.pem
    keep tls_ca.pem <"$work/ca.pem"
    keep tls_key.pem <"$work/server.key"
    keep tls_certificate.pem < <(cat "$work/server.pem" "$work/ca.pem")
fi
echo "secrets in $(pwd): ${#made[@]} made${made[*]:+ (${made[*]})}"
