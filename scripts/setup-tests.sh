#!/usr/bin/env bash
# Installs what the tests need besides the Rust toolchain, once; quick when everything is there.
#   - psql and a PostgreSQL 15 server (Debian packages): a client to serve, and an oracle to compare answers with
#   - strace, which makes a sync fail
#   - iproute2 and nftables, which make a network of namespaces and cut it, and libfaketime, by which the clock of one process is wrong
#   - a Python environment with psycopg, duckdb, pyarrow and moto's server in the cache directory: other readers of wire and files, and an S3 store
set -euo pipefail

cache="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/annal"
venv="$cache/venv"
python_packages=(psycopg[binary]==3.2.9 duckdb==1.3.2 pyarrow==20.0.0
    "moto[s3]==5.2.5" flask==3.1.3 flask-cors==6.0.5)

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "setup-tests: error: \"$*\" needs root, and there is no sudo" >&2
        exit 1
    fi
}

updated=no
install_packages() {
    if [ "$updated" = no ]; then
        as_root apt-get update -q
        updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

postgres_is_here() {
    command -v psql >/dev/null && { [ -x /usr/lib/postgresql/15/bin/initdb ] || command -v initdb >/dev/null; }
}

if ! postgres_is_here; then
    # The package would start a server of its own on port 5432; the tests start their own where they like.
    install_packages postgresql-common
    as_root sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    install_packages postgresql-15 postgresql-client-15
fi

command -v strace >/dev/null || install_packages strace
command -v ip >/dev/null || install_packages iproute2
command -v nft >/dev/null || install_packages nftables
compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null || install_packages libfaketime

ready="$venv/ready-$(printf '%s\n' "${python_packages[@]}" | cksum | cut -d' ' -f1)"
if [ ! -e "$ready" ]; then
    rm -rf "$venv"
    mkdir -p "$cache"
    python3 -m venv "$venv" 2>/dev/null || { install_packages python3-venv && python3 -m venv --clear "$venv"; }
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${python_packages[@]}"
    touch "$ready"
fi
echo "test tools: $(psql --version), strace, ip, nft, libfaketime, Python environment in $venv"
