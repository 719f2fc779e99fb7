# The agent. Its unit is the one that the package ships, with the reason beside
# each line of the sandbox; what follows here is what only NixOS knows.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.uncloud;
in
{
  options.services.uncloud = {
    enable = lib.mkEnableOption "the Uncloud agent, which makes this machine ready to be a member of a cluster";
    package = lib.mkPackageOption pkgs "uncloud" { };
  };

  config = lib.mkIf cfg.enable {
    systemd.packages = [ cfg.package ];
    systemd.services.uncloud = {
      wantedBy = [ "multi-user.target" ];
      path = [ pkgs.nftables ];
      restartTriggers = [ config.environment.etc."uncloud/config.json".source ];
      # One restart and not stop, wait, start: the agent may carry the connection
      # of whoever switches. Containers and tunnels stay through either.
      stopIfChanged = false;
    };
  };
}
