# Who this machine is in the cluster. All of it is read when the machine becomes
# a member; afterwards it belongs to the cluster, and `uc machine` changes it.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
  inherit (lib) mkOption types;
in
{
  options.services.uncloud = {
    name = mkOption {
      type = types.nullOr (types.strMatching "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?");
      default = null;
      example = "pi-1";
      description = "Name of this machine in the cluster. `null` is its host name.";
    };
    labels = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example.zone = "home";
      description = "Labels of this machine, which placement constraints of services refer to.";
    };
    roles = mkOption {
      type = types.nonEmptyListOf (
        types.enum [
          "ingress"
          "worker"
        ]
      );
      default = [
        "ingress"
        "worker"
      ];
      example = [ "worker" ];
      description = ''
        What this machine does for others: `worker` runs replicas, `ingress`
        serves the host names of routes on ports 80 and 443.
      '';
    };
  };

  config.services.uncloud.settings = lib.mkIf cfg.enable {
    name = lib.mkIf (cfg.name != null) cfg.name;
    labels = lib.mkIf (cfg.labels != { }) cfg.labels;
    inherit (cfg) roles;
  };
}
