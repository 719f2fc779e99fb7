# What containers write goes to the journal, so that is what rotates.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
in
{
  options.services.uncloud.logs.maxUse = lib.mkOption {
    type = lib.types.strMatching "[0-9]+[KMGT]?";
    default = "1G";
    example = "200M";
    description = "Most that the journal takes of the disk, with the logs of all containers.";
  };

  config = lib.mkIf cfg.enable {
    environment.etc."systemd/journald.conf.d/60-uncloud.conf".text = ''
      [Journal]
      SystemMaxUse=${cfg.logs.maxUse}
    '';
  };
}
