# The machine itself resolves what its containers resolve: names under
# `internal` are asked of the agent, and nothing else is.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.uncloud;
  device = "sys-subsystem-net-devices-uncloud0.device";

  # The agent gives the bridge its address, another one after a renumbering, and
  # answers there. `monitor` is started first so that no change falls between.
  follow = pkgs.writeShellScript "uncloud-names" ''
    ip -oneline -4 monitor address dev uncloud0 | {
      ip -oneline -4 address show dev uncloud0 scope global
      exec cat
    } | while read -r _ _ _ address _; do
      [[ $address == */* ]] || continue # the line tells of a removal
      resolvectl dns uncloud0 "''${address%/*}"
      resolvectl domain uncloud0 '~internal'
    done
  '';
in
{
  options.services.uncloud.names.host = lib.mkOption {
    type = lib.types.bool;
    default = true;
    description = ''
      Whether this machine's own programs resolve names of services, such as
      `web.internal`. It needs systemd-resolved, which this turns on.
    '';
  };

  config = lib.mkIf (cfg.enable && cfg.names.host) {
    services.resolved.enable = lib.mkDefault true;
    systemd.services.uncloud-names = {
      description = "Names of services for the machine itself";
      wantedBy = [ device ];
      bindsTo = [ device ];
      after = [
        device
        "systemd-resolved.service"
      ];
      partOf = [ "systemd-resolved.service" ];
      path = [
        pkgs.iproute2
        config.systemd.package
      ];
      serviceConfig = {
        ExecStart = follow;
        Restart = "on-failure";
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateTmp = true;
        NoNewPrivileges = true;
        CapabilityBoundingSet = [ "CAP_NET_ADMIN" ]; # resolved asks for it
      };
    };
  };
}
