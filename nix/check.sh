# shellcheck shell=bash
# shellcheck disable=SC2154 # what nix/dev.sh has, which reads this file
# The verb check of ./dev nix.

nix_check() {
    local fresh='' eval='' part parts=()
    for part; do
        case $part in
            --fresh) fresh=1 ;;
            --eval) eval=1 ;;
            -*) fail "nix check has no flag $part; ./dev nix help lists them" ;;
            *) declare -F "part_${part//-/_}" >/dev/null || fail "there is no part $part; ./dev nix help lists them"
                parts+=("$part") ;;
        esac
    done
    need_nix check
    [ ${#parts[@]} -gt 0 ] || mapfile -t parts < <(all_parts "$eval")
    nix_bad=0
    local began=$SECONDS
    mkdir -p "$cache/nix-in-order"
    for part in "${parts[@]}"; do step "$part"; done
    [ $nix_bad = 0 ] || fail "not in order yet"
    say "in order: ${parts[*]} ($((SECONDS - began)) s)"
}

# The parts that are done unless somebody names others. The flake as a whole
# needs both inputs, and a process that holds every image of a system at once.
all_parts() {
    printf '%s\n' parse lock scripts refusals golden units vendor-hash examples media
    if [ -z "${NIXOS_HARDWARE:-}" ]; then
        say "NIXOS_HARDWARE names no tree, so what is for Raspberry Pis is not checked, nor the flake as a whole"
        printf '%s\n' images scenarios
    elif [ "$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)" -lt 14 ]; then
        say "less than 14 GB of memory are free, so the flake is checked in parts and not as a whole"
        printf '%s\n' images scenarios
    else
        echo flake
    fi
    [ -n "$1" ] || echo build
}

# step PART: says how long it took, and goes on after a failure.
step() {
    local part=$1 start=$SECONDS log=$nix_src.log status mark
    mark=$cache/nix-in-order/$part-$(inputs_of "$part" | sha256sum | cut -c1-32)
    if [ -z "$fresh" ] && [ -e "$mark" ]; then
        say "ok     $part (as before)"
        return
    fi
    say "       $part ..."
    set +e # not in a condition, where the functions below would go on after an error
    (set -e; "part_${part//-/_}") 2>&1 | progress "$log"
    status=${PIPESTATUS[0]}
    set -e
    if [ "$status" = 0 ]; then
        say "ok     $part ($((SECONDS - start)) s)"
        [ "$part" = build ] || : >"$mark"
    else
        say "FAILED $part ($((SECONDS - start)) s)"
        grep -v -e 'evaluation warning: getExe' -e '^checking ' -e '^derivation evaluated' "$log" >&2
        nix_bad=1
    fi
}

# progress LOG: keeps what it reads, and says how long each thing took of which
# Nix tells that it begins.
progress() {
    local line at=$SECONDS what=''
    : >"$1"
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$1"
        case $line in
            'checking derivation '* | 'checking app '* | 'trace: '*)
                [ -z "$what" ] || printf 'dev:          %4d s  %s\n' $((SECONDS - at)) "$what" >&2
                what=${line#checking } what=${what#derivation } what=${what#app } what=${what#trace: } what=${what%...} at=$SECONDS
                ;;
        esac
    done
    [ -z "$what" ] || printf 'dev:          %4d s  %s\n' $((SECONDS - at)) "$what" >&2
}

# inputs_of PART: all that its verdict depends on, as text. What is evaluated
# sees that Go code is there and not what it says, so that is no input; of
# modules only files' heads decide, which import them.
inputs_of() {
    echo "$1" "${NIXOS_HARDWARE:+with hardware}"
    case $1 in
        vendor-hash)
            (cd "$nix_src" && find . -name '*.go' | LC_ALL=C sort | xargs awk \
                'FNR == 1 {head = 1} /^(func|type|var|const) / {head = 0} head && (/"/ || /^\/\/go:build/)')
            cat "$nix_src"/go.* "$nix_src/nix/vendor-hash" "$nix_src"/nix/{dev.sh,sources.nix}
            go version
            ;;
        *)
            (cd "$nix_src" && find flake.* nix images packaging docs/options.md examples/machines tests/nixos -type f |
                LC_ALL=C sort | xargs sha256sum)
            in_nix nix --version
            tree "$NIXPKGS"
            [ -z "${NIXOS_HARDWARE:-}" ] || tree "$NIXOS_HARDWARE"
            ;;
    esac
}

# tree DIR: which files it has and since when, which says enough of 50,000.
tree() {
    find "$1" -name .git -prune -o -type f -printf '%P %s %T@\n' | LC_ALL=C sort | sha256sum
}

# --- parts -----------------------------------------------------------------------------------------

part_parse() {
    # shellcheck disable=SC2016 # for the inner shell
    in_nix sh -c 'find /src -name "*.nix" -exec nix-instantiate --parse {} + >/dev/null'
}

# Nix looks at a hash when it fetches the input, which may be on somebody else's
# machine. So it is compared here, with what is known of the revision elsewhere,
# and with the tree where that one is at hand.
part_lock() {
    local name rev hash bad=0
    in_nix nix flake metadata --offline --no-update-lock-file path:/src
    need python3=python3
    while read -r name rev hash; do
        grep -q "^$rev $hash " nix/pins || { echo "flake.lock, $name: that $rev has the hash $hash is not in nix/pins"; bad=1; }
        has_hash "$name" "$rev" "$hash" || bad=1
    done < <(python3 -c '
import json
for name, node in json.load(open("flake.lock"))["nodes"].items():
    if "locked" in node:
        print(name, node["locked"]["rev"], node["locked"]["narHash"])
')
    return $bad
}

# has_hash INPUT REVISION HASH: only a tree that is known to be of the revision can
# tell: a clone of it without an edit.
has_hash() {
    local tree='' is
    case $1 in
        nixpkgs) tree=$NIXPKGS ;;
        nixos-hardware) tree=${NIXOS_HARDWARE:-} ;;
    esac
    [ -n "$tree" ] && [ "$(git -C "$tree" rev-parse HEAD 2>/dev/null)" = "$2" ] &&
        [ "$(git -C "$tree" rev-parse --show-toplevel)" = "$(readlink -f "$tree")" ] || return 0
    mkdir "$nix_src.tree"
    git -C "$tree" archive HEAD | tar -xC "$nix_src.tree"
    mv "$nix_src.tree" "$nix_src/.tree"
    is=$(in_nix nix hash path /src/.tree)
    rm -rf "$nix_src/.tree"
    [ "$is" = "$3" ] || { echo "flake.lock, $1: $2 has the hash $is, and not $3"; return 1; }
}

part_scripts() {
    need shellcheck=shellcheck python3=python3 mkfs.vfat=dosfstools sfdisk=fdisk
    shellcheck nix/dev.sh nix/check.sh nix/units.sh packaging/uncloud-names packaging/install.sh images/install-test.sh
    shellcheck --shell=bash images/install.sh
    local script
    for script in tests/nixos/*.py; do
        [ ! -e "$script" ] || python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' "$script"
    done
    images/install-test.sh
}

part_refusals() {
    local wrong
    wrong=$(world json refusals)
    [ "$wrong" = '[]' ] || { echo "$wrong"; return 1; }
}

part_golden() {
    local fresh bad=0
    fresh=$(mktemp -d)
    golden_into "$fresh"
    diff -ru nix/golden "$fresh/golden" && diff -u docs/options.md "$fresh/options.md" || bad=1
    rm -rf "$fresh"
    [ $bad = 0 ] || { echo 'stale; run ./dev nix golden'; return 1; }
}

part_vendor_hash() {
    local hash
    hash=$(vendor_hash)
    [ "$hash" = "$(cat nix/vendor-hash)" ] || { echo "it is $hash; run ./dev nix vendor-hash"; return 1; }
}

part_units() { in_nix bash /src/nix/units.sh /src/nix/golden; }

# One process a kind, since each keeps what it has evaluated.
part_examples() {
    world json examples
    nothing_wrong servers x86_64-linux
    [ -z "${NIXOS_HARDWARE:-}" ] || nothing_wrong boards aarch64-linux
}

# The images themselves are evaluated elsewhere; this is what must be in them.
part_media() {
    nothing_wrong media x86_64-linux
    nothing_wrong media aarch64-linux
}

# nothing_wrong LIST SYSTEM: of nix/machines.nix.
nothing_wrong() {
    local wrong
    wrong=$(world json "machines.$1" "$2")
    [ "$wrong" = '[]' ] || { echo "$wrong"; return 1; }
}

# each WHAT SYSTEM: the derivation of each member of an attribute set, in one process.
each() { world json "lib.mapAttrs (name: it: builtins.trace \"$2 \${name}\" it.drvPath) ($1)" "$2"; }

part_images() {
    local some=images
    [ -n "${NIXOS_HARDWARE:-}" ] || some='lib.filterAttrs (name: _: !lib.hasInfix "raspberry" name) images'
    each "$some" x86_64-linux
    each "$some" aarch64-linux
}

part_scenarios() { each scenarios x86_64-linux; }

# One process a system, since it keeps all that it has evaluated: 10 GB and more.
part_flake() {
    local system
    for system in x86_64-linux aarch64-linux; do
        GC_INITIAL_HEAP_SIZE=4G in_nix nix flake check --no-build --option system "$system" \
            --offline --no-write-lock-file --override-input nixpkgs path:/nixpkgs \
            --override-input nixos-hardware path:/nixos-hardware path:/src
    done
}

part_build() { build_package; }
