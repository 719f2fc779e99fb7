# shellcheck shell=bash
# The verb nix of ./dev, which reads this file. What is evaluated is a copy of
# the files that git has or would have, so nothing generated slips in.

nix_help() {
    cat <<'TEXT'
Usage: ./dev nix VERB

  check [--fresh] [PART...]   all that can be said about the Nix side here, or parts of it:
      parse        every .nix file is one
      lock         flake.lock fits flake.nix, and has the hashes of nix/pins
      scripts      shellcheck; the installer, run on a disk that is a file; the scenarios' scripts are Python
      refusals     each wrong configuration is refused with its sentence, and right ones are not
      golden       nix/golden and docs/options.md are what the module says
      units        systemd takes the units in nix/golden, and refuses wrong ones
      vendor-hash  nix/vendor-hash is the hash of the modules that the sources need
      examples     examples/machines are whole systems, and so is each module of images/modules.nix
      media        what images must have and must not: drivers of disks, no ZFS, keys that are taken
      flake        nix flake check for both systems, without building: packages, images, scenarios, shells
      images       each image for both systems; flake has them too
      scenarios    each of tests/nixos for this system: nodes, script and driver; flake has them too
      build        the package in Nix's sandbox; then its programs run
    Without a part it is all but images and scenarios. A part that was in order is not done again while
    its inputs are the same, but with --fresh. --eval leaves out the build.
  golden        nix/golden and docs/options.md, written from the evaluated module
  vendor-hash   nix/vendor-hash, after go.mod or an import changed
  build         the package in Nix's sandbox, with this machine's Go and C compiler

NIXPKGS is a tree of nixpkgs:
  git clone --depth 1 -b nixos-26.05 https://github.com/NixOS/nixpkgs
NIXOS_HARDWARE is one of nixos-hardware; without it what is for Raspberry Pis is left out, and the flake as a whole:
  git clone --depth 1 https://github.com/NixOS/nixos-hardware
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

# need_nix VERB: a tree of nixpkgs, a root with Nix, and a copy of the sources.
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

# world FORMAT EXPRESSION [SYSTEM]: evaluates over what nix/world.nix offers. But
# for the format `stored`, nothing is written into the store: for a system that
# takes longer than its evaluation.
world() {
    local hardware='' flags=(--read-only "--$1")
    [ "$1" != stored ] || flags=(--raw)
    [ -z "${NIXOS_HARDWARE:-}" ] || hardware='hardware = /nixos-hardware;'
    in_nix nix eval --impure "${flags[@]}" --expr \
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
    sources=$(world stored '"${sources}"')
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

# Built, run, and given the configurations and projects that the module writes.
build_package() {
    local programs config project
    in_nix nix-build --no-out-link --cores 0 -E \
        '(import /src/nix/native.nix { nixpkgs = /nixpkgs; }).callPackage /src/nix/package.nix { }' | tee "$nix_src.built"
    programs=$nix_root$(tail -n 1 "$nix_src.built")/bin
    "$programs/uncloudd" version
    for config in nix/golden/*/etc/uncloud/config.json; do
        "$programs/uncloudd" run --check --config "$config"
    done
    for project in nix/golden/*/etc/uncloud/projects/*.yaml; do
        "$programs/uc" deploy --check --file "$project"
    done
}

nix_verb() {
    local verb=${1:-help}
    [ $# -eq 0 ] || shift
    . nix/check.sh
    case $verb in
        check | golden | build | help) "nix_$verb" "$@" ;;
        vendor-hash) nix_vendor_hash ;;
        *) fail "there is no verb nix $verb; ./dev nix alone lists them" ;;
    esac
}
