# What ./dev asks for, but for mmdebstrap, which nixpkgs does not have: the lab
# and the virtual machines of Debian need a Debian or Ubuntu.
{ pkgs }:
pkgs.mkShell {
  packages = with pkgs; [
    go
    golangci-lint
    nixfmt
    shellcheck-minimal
    iproute2
    nftables
    podman
  ];
}
