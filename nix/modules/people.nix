# Who may use the cluster from this machine.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
in
{
  options.services.uncloud.users = lib.mkOption {
    type = lib.types.listOf lib.types.str;
    default = [ ];
    example = [ "alice" ];
    description = ''
      Users who may use the agent's socket, and with it {command}`uc`, without
      being root. That is full control of the cluster, and of this machine.
    '';
  };

  config = lib.mkIf cfg.enable {
    users.groups.uncloud.members = cfg.users;
    environment.systemPackages = [ cfg.package ];
  };
}
