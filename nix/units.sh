#!/usr/bin/env bash
# units.sh GOLDEN: systemd takes the units of each machine in GOLDEN, and of what
# it may be upgraded to, as that machine would read them: with the package's files
# beside. It runs in the root that ./dev nix has Nix in, where systemd is.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$(readlink -f "$0")")/.."
golden=$1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The programs that they start.
for program in /usr/bin/uc /usr/bin/uncloudd /usr/libexec/uncloud/uncloud-names /run/current-system/sw/bin/sleep; do
    [ -e "$program" ] || install -D -m 755 /bin/true "$program"
done

# machine DIR NAME: all that the machine has of ours.
machine() {
    mkdir -p "$work/$2"
    cp -r "$1"/etc/systemd/system/. packaging/uncloud*.service packaging/uncloud*.path "$work/$2/"
}

# verify NAME: not a word may be said, since systemd ignores what it does not know.
verify() {
    local said right=1
    said=$(SYSTEMD_UNIT_PATH=$work/$1: systemd-analyze verify --man=no --recursive-errors=one \
        "$work/$1"/uncloud*.{service,path,target,timer,socket} 2>&1) || right=
    [ -z "$right" ] || [ -n "$said" ] || return 0
    printf '%s: %s\n' "$1" "${said:-refused without a word}"
    return 1
}

bad=0 machines=()
for dir in "$golden"/*/ "$golden"/*/specialisation/*/; do
    [ -d "$dir/etc/systemd/system" ] || continue # it is one without Uncloud
    name=${dir#"$golden"/} name=${name%/} name=${name//\//-}
    machine "$dir" "$name"
    verify "$name" || bad=1
    machines+=("$name")
done
[ ${#machines[@]} -gt 0 ] || { echo "there are no units in $golden"; exit 1; }

# What this is for is found: NAME UNIT TEXT is a drop-in that makes a machine wrong.
wrong() {
    machine "$golden/alone" "$1"
    mkdir -p "$work/$1/$2.d"
    printf '%b\n' "$3" >"$work/$1/$2.d/wrong.conf"
    ! verify "$1" >/dev/null || { echo "systemd-analyze lets through: $1"; bad=1; }
}
wrong no-program uncloud.service '[Service]\nExecStart=\nExecStart=/usr/bin/nothing run'
wrong no-requirement uncloud.service '[Unit]\nRequires=nothing.service'
wrong two-starts uncloud.service '[Service]\nExecStart=/usr/bin/uncloudd run'
wrong no-path uncloud-host.path '[Path]\nDirectoryNotEmpty='
wrong unknown-key uncloud.service '[Service]\nExcStart=/usr/bin/uncloudd run'
exit $bad
