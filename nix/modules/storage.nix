# Where things are kept. The agent waits for the disks that hold them.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
  inherit (cfg) storage;
  inherit (lib) mkOption types;
in
{
  options.services.uncloud.storage = {
    stateDir = mkOption {
      type = types.path;
      default = "/var/lib/uncloud";
      description = "Identity and database of this machine: small, and worth a backup.";
    };
    containersDir = mkOption {
      type = types.path;
      default = "/var/lib/containers/storage";
      example = "/mnt/disk/containers";
      description = "Images, containers and volumes.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.uncloud.settings.stateDir = toString storage.stateDir;
    virtualisation.containers.storage.settings.storage.graphroot = toString storage.containersDir;
    systemd.services.uncloud.unitConfig.RequiresMountsFor = [
      storage.stateDir
      storage.containersDir
    ];
  };
}
