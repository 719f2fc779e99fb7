# The links of the mesh belong to the agent, and those of containers to Podman.
# Whoever else manages links keeps off them, so that a switch of the generation,
# which restarts it, leaves their addresses and routes alone.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
in
{
  config = lib.mkIf cfg.enable {
    networking.dhcpcd.denyInterfaces = [
      "uncloud*"
      "veth*"
    ];
    networking.networkmanager.unmanaged = [
      "interface-name:uncloud*"
      "interface-name:veth*"
    ];
    systemd.network = lib.mkIf config.systemd.network.enable {
      # By default networkd removes every route that it did not make itself.
      config.networkConfig.ManageForeignRoutes = lib.mkDefault false;
      networks."05-uncloud" = {
        matchConfig.Name = "uncloud uncloud0";
        linkConfig.Unmanaged = true;
      };
    };
  };
}
