# All that ./dev asks for.
{ pkgs }:
pkgs.mkShell {
  packages = with pkgs; [
    go
    golangci-lint
    nixfmt
    shellcheck

    # The lab: machines in namespaces.
    iproute2
    mmdebstrap
    nftables
    podman
  ];
}
