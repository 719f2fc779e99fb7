# The container engine.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
in
{
  config = lib.mkIf cfg.enable {
    virtualisation.podman.enable = true;

    # It logs every call that it answers, and the agent asks it what runs, again
    # and again: as packaging/podman.conf has it elsewhere.
    systemd.services.podman.environment.LOGGING = "--log-level=warn";

    # Text, and not an option of another module: the same file is installed on
    # machines that are not NixOS.
    environment.etc."containers/containers.conf.d/60-uncloud.conf".text = builtins.readFile ../../packaging/containers.conf;
  };
}
