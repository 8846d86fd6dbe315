#!/bin/sh
# Installs regstream as a service of systemd, upgrades it, and takes it away again. It may be run as often as one likes.
#
#   sudo systemd/install.sh                   install, or upgrade to this checkout
#   sudo systemd/install.sh --uninstall       take program and unit away; /etc/regstream and /var/lib/regstream stay
#   sudo systemd/install.sh --uninstall --purge   … and these, too
#
# Each version is a virtual environment of its own below /opt/regstream/releases; the link /opt/regstream/current names
# the one in force, and is moved only when the new one has found /etc/regstream valid.
set -eu

# Wherever one stands may be gone for who runs the steps
SOURCE=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
cd /
PREFIX=/opt/regstream
CONFIG=/etc/regstream
UNIT=/etc/systemd/system/regstream.service
STATE="/var/lib/regstream /var/lib/private/regstream"
KEEP=2

PYTHON=${PYTHON:-}
WHEELS=
START=yes
DRY=no
DO=install
PURGE=no
BEFORE=

usage() {
    cat <<'TEXT'
usage: install.sh [--python PATH] [--wheels FOLDER] [--no-start] [--dry-run]
       install.sh --uninstall [--purge] [--dry-run]

  --python PATH    the Python to run on, 3.11 or newer; default: the system's newest
  --wheels FOLDER  take the libraries from this folder, for a server without internet; fill it elsewhere with
                   pip download --require-hashes -r constraints-traces.txt -d FOLDER
  --no-start       install, and start nothing
  --dry-run        say what would be done
  --uninstall      stop it and take it away; configuration and state stay
  --purge          with --uninstall: take these away, too
TEXT
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '  %s\n' "$2" >&2
    exit 1
}
# What changes the system goes through here
run() {
    if [ "$DRY" = yes ]; then say "would run: $*"; else "$@"; fi
}

while [ $# -gt 0 ]; do
    case $1 in
        --python | --wheels)
            [ $# -gt 1 ] || fail "$1 needs a value" "see install.sh --help"
            if [ "$1" = --python ]; then PYTHON=$2; else WHEELS=$2; fi
            shift
            ;;
        --no-start) START=no ;;
        --dry-run) DRY=yes ;;
        --uninstall) DO=uninstall ;;
        --purge) PURGE=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) fail "unknown option $1" "see install.sh --help" ;;
    esac
    shift
done

[ "$PURGE" = no ] || [ "$DO" = uninstall ] || fail "--purge goes with --uninstall" "see install.sh --help"
[ "$(id -u)" = 0 ] || [ "$DRY" = yes ] || fail "only root can install a service" "sudo $0"
command -v systemctl >/dev/null || fail "there is no systemd on this system" "run it by hand: make run"
booted() { [ -d /run/systemd/system ]; }

# --- taking it away -------------------------------------------------------------------------------------------------

uninstall() {
    if booted && [ -e "$UNIT" ]; then run systemctl disable --now regstream.service; fi
    run rm -f "$UNIT"
    if booted; then run systemctl daemon-reload; fi
    run rm -rf "$PREFIX"
    if [ "$PURGE" = yes ]; then
        # shellcheck disable=SC2086 # two paths
        run rm -rf "$CONFIG" $STATE
        say "regstream is gone, with its configuration and its state"
    else
        say "regstream is gone; $CONFIG and /var/lib/regstream stay (--purge takes them, too)"
    fi
}

# --- putting it there -----------------------------------------------------------------------------------------------

# The first Python that is new enough, can make a virtual environment, and is not hidden from services.
choose_python() {
    bare=
    for one in ${PYTHON:-/usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 /usr/bin/python3 python3}; do
        path=$(command -v "$one") || continue
        "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        real=$("$path" -c 'import os, sys; print(os.path.realpath(sys.executable))')
        case $real in
            /home/* | /root/*)
                bare="$real is below a home folder, which ProtectHome= hides from services"
                continue
                ;;
        esac
        if "$path" -c 'import ensurepip, venv' 2>/dev/null; then
            PYTHON=$path
            return
        fi
        bare="$path cannot make a virtual environment"
    done
    [ -z "$bare" ] || fail "$bare" "apt-get install python3 python3-venv, or its like, or name another one: --python PATH"
    fail "regstream needs Python 3.11 or newer, and none was found" "install it, or name it: --python PATH"
}

version() { sed -n 's/^version = "\(.*\)"/\1/p' "$SOURCE/pyproject.toml"; }

# What traces need is more than the daemon has, and is installed where they are asked for
constraints() {
    if grep -qsi '^OTEL_TRACES_EXPORTER="\?otlp' "$CONFIG/regstream.env"; then
        echo "$SOURCE/constraints-traces.txt"
    else
        echo "$SOURCE/constraints.txt"
    fi
}

build() {
    RELEASE=$PREFIX/releases/$(version)-$(date -u +%Y%m%dT%H%M%SZ)-$$
    say "building $RELEASE with $PYTHON"
    [ "$DRY" = no ] || return 0
    mkdir -p "$PREFIX/releases"
    # What stays behind when this fails would only take space
    trap 'rm -rf "$RELEASE" "$RELEASE.source"' EXIT
    "$PYTHON" -m venv "$RELEASE"
    set -- --quiet --disable-pip-version-check --no-input
    if [ -n "$WHEELS" ]; then
        [ -d "$WHEELS" ] || fail "there is no folder $WHEELS" "fill one: pip download --require-hashes -r constraints-traces.txt -d $WHEELS"
        "$RELEASE/bin/python" -m pip install "$@" --no-index --find-links "$WHEELS" --require-hashes -r "$(constraints)"
    else
        "$RELEASE/bin/python" -m pip install "$@" --require-hashes -r "$(constraints)"
    fi
    # From a copy: the checkout may be read-only, and is not to be written into
    mkdir "$RELEASE.source"
    cp -R "$SOURCE/regstream" "$SOURCE/pyproject.toml" "$SOURCE/README.md" "$SOURCE/LICENSE" "$RELEASE.source/"
    "$RELEASE/bin/python" -m pip install "$@" --no-deps --no-build-isolation --no-index "$RELEASE.source"
    rm -rf "$RELEASE.source"
}

# A file of the operator's is never overwritten: what ships now is laid beside it.
configure_one() {
    shipped=$1
    mine=$CONFIG/$2
    if [ ! -e "$mine" ]; then
        run install -D -m "$3" "$shipped" "$mine"
    elif ! cmp -s "$shipped" "$mine"; then
        if ! cmp -s "$shipped" "$mine.new"; then
            run install -m "$3" "$shipped" "$mine.new"
            say "$mine is not what ships with this version, which is beside it: $mine.new"
        fi
    fi
}

configure() {
    run mkdir -p "$CONFIG/scenarios" "$CONFIG/templates"
    run chmod 755 "$CONFIG" "$CONFIG/scenarios" "$CONFIG/templates"
    first=no
    [ -e "$CONFIG/streams.yaml" ] || first=yes
    configure_one "$SOURCE/streams.yaml" streams.yaml 644
    # Scenarios and templates that were deleted on purpose do not come back
    if [ "$first" = yes ]; then
        for one in "$SOURCE"/scenarios/*.yaml "$SOURCE"/templates/*; do
            [ ! -f "$one" ] || configure_one "$one" "$(basename "$(dirname "$one")")/$(basename "$one")" 644
        done
    fi
    # It holds secrets, and systemd reads it as root
    [ -e "$CONFIG/regstream.env" ] || run install -m 600 "$SOURCE/systemd/regstream.env.example" "$CONFIG/regstream.env"
    run install -m 644 "$SOURCE/systemd/regstream.env.example" "$CONFIG/regstream.env.example"
}

# With the new program, and with the environment of the service as systemd reads it, which is not as a shell would
valid() {
    [ "$DRY" = no ] || return 0
    if booted; then
        systemd-run --quiet --wait --pipe --collect -p "EnvironmentFile=-$CONFIG/regstream.env" \
            -p "WorkingDirectory=$CONFIG" "$RELEASE/bin/regstream" validate
    else
        (cd "$CONFIG" && "$RELEASE/bin/regstream" validate)
    fi
}

# In one step: there is never no version in force
point_at() {
    ln -sfn "$1" "$PREFIX/current.new"
    mv -T "$PREFIX/current.new" "$PREFIX/current"
}

switch() {
    [ "$DRY" = no ] || { say "would make $RELEASE the one in force"; return 0; }
    trap - EXIT
    BEFORE=$(readlink "$PREFIX/current" || true)
    point_at "$RELEASE"
}

service() {
    FRESH=no
    [ -e "$UNIT" ] || FRESH=yes
    run install -m 644 "$SOURCE/systemd/regstream.service" "$UNIT"
    booted || { say "systemd does not run here: the service starts with the next boot"; return 0; }
    run systemctl daemon-reload
    if [ "$FRESH" = yes ] && [ "$START" = yes ]; then
        run systemctl enable --quiet regstream.service
        start
    elif [ "$START" = yes ] && systemctl is-active --quiet regstream.service; then
        start
    else
        say "the service is not running, and was not started: systemctl enable --now regstream"
    fi
}

start() {
    if run systemctl restart regstream.service; then return 0; fi
    [ -n "$BEFORE" ] || fail "the service did not start" "journalctl -u regstream says why"
    point_at "$BEFORE"
    rm -rf "$RELEASE"
    systemctl reset-failed regstream.service || true
    systemctl restart regstream.service || true
    fail "this version did not start, and the one before is in force again" "journalctl -u regstream says why"
}

forget_old() {
    [ "$DRY" = no ] || return 0
    # shellcheck disable=SC2012 # the names are ours
    ls -1dt "$PREFIX"/releases/*/ | tail -n "+$((KEEP + 1))" | while read -r old; do rm -rf "$old"; done
}

if [ "$DO" = uninstall ]; then
    uninstall
    exit 0
fi
choose_python
build
configure
valid || fail "the files in $CONFIG are not valid for this version, which was not put into force" "mend them, and run this again"
switch
service
forget_old
say "regstream $(version) is installed; its files are in $CONFIG, its log: journalctl -u regstream"
