# The container engine.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
in
{
  config = lib.mkIf cfg.enable {
    virtualisation.podman.enable = true;

    # Text, and not an option of another module: the same file is installed on
    # machines that are not NixOS.
    environment.etc."containers/containers.conf.d/60-uncloud.conf".text = builtins.readFile ../../packaging/containers.conf;
  };
}
