# shellcheck shell=bash
# The verb nix of ./dev, which reads this file. What is evaluated is a copy of
# the files that git has or would have, so nothing generated slips in.

nix_help() {
    cat <<'TEXT'
Usage: ./dev nix VERB

  check [--eval]   all that can be said about the Nix side here; --eval leaves out the build
  golden           nix/golden and docs/options.md, written from the evaluated module
  vendor-hash      nix/vendor-hash, after go.mod or an import changed
  build            the package in Nix's sandbox, with this machine's Go and C compiler

NIXPKGS is a tree of nixpkgs:
  git clone --depth 1 -b nixos-26.05 https://github.com/NixOS/nixpkgs
NIXOS_HARDWARE is one of nixos-hardware; without it the images of Raspberry Pis are left out.
NIX_ROOT is a Debian root that has Nix; without it one is made in .cache (a minute).
TEXT
}

nix_config='experimental-features = nix-command flakes
build-users-group =
ssl-cert-file = /etc/ssl/certs/ca-certificates.crt
substituters =
sandbox = true
sandbox-fallback = false
sandbox-paths = /bin /usr /lib /lib64 /etc/alternatives
filter-syscalls = false'

need_nix() {
    [ -n "${NIXPKGS:-}" ] || fail "NIXPKGS names no tree of nixpkgs, so nothing was checked; ./dev nix help says how to get one"
    [ -e "$NIXPKGS/nixos/lib/eval-config.nix" ] || fail "NIXPKGS=$NIXPKGS is no tree of nixpkgs, so nothing was checked"
    need_root nix "$@"
    need_go
    nix_root=${NIX_ROOT:-$cache/nix-root}
    nix_src=$(mktemp -d "$cache/nix-src.XXXX")
    trap 'rm -rf "$nix_src" "$nix_src".*' EXIT
    if [ ! -x "$nix_root/usr/bin/nix" ]; then
        need mmdebstrap=mmdebstrap
        say "making a Debian root with Nix (once)"
        mmdebstrap -q --variant=minbase \
            --include=nix-bin,gcc,libc6-dev,make,xz-utils,patch,patchelf,file,git,ca-certificates,systemd,systemd-resolved \
            trixie "$nix_root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
        # A build fetches modules, and asks those whom this machine trusts.
        cp /etc/ssl/certs/ca-certificates.crt "$nix_root/etc/ssl/certs/"
    fi
    git ls-files -coz --exclude-standard | while IFS= read -r -d '' file; do
        [ ! -e "$file" ] || printf '%s\0' "$file"
    done | tar --null -cT - | tar -xC "$nix_src"
}

# in_nix COMMAND...: in the root with Nix, with the trees beside it. pivot_root
# and not chroot, in which Nix could make no sandbox for its builds.
in_nix() {
    # shellcheck disable=SC2016 # for the inner shell
    NIX_CONFIG=$nix_config unshare --mount --fork bash -ec '
        root=$1 src=$2 nixpkgs=$3 hardware=$4 go=$5
        shift 5
        mount --make-rprivate /
        mount --rbind "$root" "$root"
        bind() { mkdir -p "$root/$2" && mount --bind "$1" "$root/$2"; }
        bind "$src" src
        bind "$nixpkgs" nixpkgs
        [ -z "$hardware" ] || bind "$hardware" nixos-hardware
        bind "$go" usr/local/go
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        rm -rf "$root/homeless-shelter"
        rm -f "$root/etc/resolv.conf" # systemd-resolved has made it a link
        cp -L /etc/resolv.conf "$root/etc/resolv.conf"
        cd "$root"
        mkdir -p .old
        pivot_root . .old
        cd /
        umount -l /.old
        exec env -u SSL_CERT_FILE -u SSL_CERT_DIR -u NIX_SSL_CERT_FILE HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
    ' nix "$nix_root" "$nix_src" "$NIXPKGS" "${NIXOS_HARDWARE:-}" "$(go env GOROOT)" "$@"
}

# world FORMAT EXPRESSION [SYSTEM]: evaluates over what nix/world.nix offers.
world() {
    local hardware=''
    [ -z "${NIXOS_HARDWARE:-}" ] || hardware='hardware = /nixos-hardware;'
    in_nix nix eval --impure "--$1" --expr \
        "with import /src/nix/world.nix { nixpkgs = /nixpkgs; $hardware system = \"${3:-x86_64-linux}\"; }; $2"
}

# --- what is generated -------------------------------------------------------------------------

# golden_into DIR: DIR/golden and DIR/options.md.
golden_into() {
    world json golden | write_files "$1/golden"
    world raw options >"$1/options.md"
}

# write_files DIR: from a JSON object of names and texts.
write_files() {
    need python3=python3
    python3 -c '
import json, pathlib, sys
for name, text in json.load(sys.stdin).items():
    file = pathlib.Path(sys.argv[1], name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
' "$1"
}

nix_golden() {
    need_nix golden
    local fresh
    fresh=$(mktemp -d)
    golden_into "$fresh"
    rm -rf nix/golden
    mv "$fresh/golden" nix/golden
    cp "$fresh/options.md" docs/options.md
    rm -rf "$fresh"
    git status --short nix/golden docs/options.md
}

# The hash of what `go mod vendor` makes of the very files that the package has.
vendor_hash() {
    local sources vendor
    # shellcheck disable=SC2016 # Nix fills it in
    sources=$(world raw '"${sources}"')
    vendor=$nix_src/.sources
    cp -r "$nix_root$sources" "$vendor"
    chmod -R u+w "$vendor"
    (cd "$vendor" && GOFLAGS='' go mod vendor)
    in_nix nix hash path /src/.sources/vendor
    rm -rf "$vendor"
}

nix_vendor_hash() {
    need_nix vendor-hash
    local hash
    hash=$(vendor_hash)
    echo "$hash" >nix/vendor-hash
    say "nix/vendor-hash is $hash"
}

nix_build() {
    need_nix build
    build_package
}

# Built, run, and given the configurations that the module writes.
build_package() {
    local agent config
    in_nix nix-build --no-out-link --cores 0 -E \
        '(import /src/nix/native.nix { nixpkgs = /nixpkgs; }).callPackage /src/nix/package.nix { }' | tee "$nix_src.built"
    agent=$nix_root$(tail -n 1 "$nix_src.built")/bin/uncloudd
    "$agent" version
    for config in nix/golden/*/etc/uncloud/config.json; do
        "$agent" run --check --config "$config"
    done
}

# --- check ---------------------------------------------------------------------------------------

# step NAME COMMAND...: says how long it took, and goes on after a failure.
step() {
    local name=$1 start=$SECONDS log=$nix_src.log status
    shift
    set +e # not in a condition, where the functions below would go on after an error
    (set -e; "$@") >"$log" 2>&1
    status=$?
    set -e
    if [ $status = 0 ]; then
        say "ok     $name ($((SECONDS - start)) s)"
    else
        say "FAILED $name ($((SECONDS - start)) s)"
        grep -v 'evaluation warning: getExe' "$log" >&2
        nix_bad=1
    fi
}

parses() {
    # shellcheck disable=SC2016 # for the inner shell
    in_nix sh -c 'find /src -name "*.nix" -exec nix-instantiate --parse {} + >/dev/null'
}

lock_fits() { in_nix nix flake metadata --offline --no-update-lock-file path:/src; }

refusals_hold() {
    local wrong
    wrong=$(world json refusals)
    [ "$wrong" = '[]' ] || { echo "$wrong"; return 1; }
}

goldens_fresh() {
    local fresh bad=0
    fresh=$(mktemp -d)
    golden_into "$fresh"
    diff -ru nix/golden "$fresh/golden" && diff -u docs/options.md "$fresh/options.md" || bad=1
    rm -rf "$fresh"
    [ $bad = 0 ] || { echo 'stale; run ./dev nix golden'; return 1; }
}

vendor_hash_right() {
    local hash
    hash=$(vendor_hash)
    [ "$hash" = "$(cat nix/vendor-hash)" ] || { echo "it is $hash; run ./dev nix vendor-hash"; return 1; }
}

# The units as systemd of a machine would read them, with the package's files beside.
units_verify() {
    local dir=$nix_src/.verify name
    rm -rf "$dir"
    for name in nix/golden/*/; do
        mkdir -p "$dir/$(basename "$name")"
        cp -r "$name"etc/systemd/system/. packaging/*.service "$dir/$(basename "$name")/"
    done
    # shellcheck disable=SC2016 # for the inner shell
    in_nix bash -c '
        mkdir -p /usr/libexec/uncloud
        for program in /usr/bin/uc /usr/bin/uncloudd /usr/libexec/uncloud/uncloud-names; do
            [ -e $program ] || install -m 755 /bin/true $program
        done
        status=0
        for machine in /src/.verify/*/; do
            SYSTEMD_UNIT_PATH=$machine: systemd-analyze verify --man=no "$machine"uncloud*.service || status=1
        done 2>&1 | tee /tmp/verify
        ! grep -q /src/.verify /tmp/verify'
}

image_names() { world json 'builtins.attrNames images' "$1" | tr -d '[]"' | tr , '\n'; }

# One process an image: each needs a GB while it is evaluated.
evaluate_images() {
    local system name
    for system in x86_64-linux aarch64-linux; do
        for name in $(image_names "$system"); do
            [[ $name != *raspberry* ]] || [ -n "${NIXOS_HARDWARE:-}" ] || continue
            step "$name for $system" world raw "images.$name.drvPath" "$system"
        done
    done
}

flake_check() {
    local hardware=()
    [ -z "${NIXOS_HARDWARE:-}" ] || hardware=(--override-input nixos-hardware path:/nixos-hardware)
    in_nix nix flake check --no-build --all-systems --offline --no-write-lock-file \
        --override-input nixpkgs path:/nixpkgs "${hardware[@]}" path:/src
}

scripts_sound() {
    need shellcheck=shellcheck python3=python3
    shellcheck nix/dev.sh packaging/uncloud-names
    shellcheck --shell=bash images/install.sh
    local script
    for script in nix/demo.py tests/nixos/*.py; do
        [ ! -e "$script" ] || python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$script"
    done
}

nix_check() {
    need_nix check
    nix_bad=0
    step "every file parses" parses
    step "flake.lock fits flake.nix" lock_fits
    step "scripts" scripts_sound
    step "wrong configurations are refused, right ones are not" refusals_hold
    step "golden files and docs/options.md are fresh" goldens_fresh
    step "systemd takes the units" units_verify
    step "nix/vendor-hash" vendor_hash_right
    step "examples for people" world json examples
    evaluate_images
    step "nix flake check, both systems, evaluated" flake_check
    [ "${1:-}" = --eval ] || step "the package, built in Nix's sandbox" build_package
    [ $nix_bad = 0 ] || fail "not in order yet"
    say "in order"
}

nix_verb() {
    local verb=${1:-help}
    [ $# -eq 0 ] || shift
    case $verb in
        check | golden | build | help) "nix_$verb" "$@" ;;
        vendor-hash) nix_vendor_hash ;;
        *) fail "there is no verb nix $verb; ./dev nix alone lists them" ;;
    esac
}
