# How this machine becomes a member: with a ticket, or as the first of a cluster.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
  inherit (lib) mkOption types;
  inherit (config.services.uncloud) create;
  flag = name: value: lib.optionals (value != null) [ "--${name}" value ];
in
{
  options.services.uncloud = {
    ticketFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/var/lib/secrets/uncloud.ticket";
      description = ''
        File with a ticket, as `uc machine ticket` writes it. While this machine
        is no member it joins with the ticket by itself, and removes the file.
        A ticket is a secret, so the file must not be in the Nix store.
      '';
    };
    create = {
      enable = lib.mkEnableOption "a new cluster with this machine as its first, where it is no member yet";
      domain = mkOption {
        type = types.nullOr (types.strMatching "[a-z0-9-]+(\\.[a-z0-9-]+)+");
        default = null;
        example = "apps.example.com";
        description = "Domain under which services get host names by default.";
      };
    };
  };

  config = lib.mkIf cfg.enable {
    services.uncloud.settings.ticketFile = lib.mkIf (cfg.ticketFile != null) (toString cfg.ticketFile);

    systemd.services.uncloud-create = lib.mkIf create.enable {
      description = "Create an Uncloud cluster";
      wantedBy = [ "multi-user.target" ];
      # The network of the cluster must be none that this machine is on, so these are known first.
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "uncloud.service"
      ];
      requires = [ "uncloud.service" ];
      # An identity that exists is never overwritten; the agent refuses it as well.
      unitConfig.ConditionPathExists = "!${cfg.storage.stateDir}/identity.json";
      serviceConfig = import ../lib/client.nix // {
        Type = "oneshot";
        ExecStart = lib.escapeShellArgs (
          [
            (lib.getExe' cfg.package "uc")
            "--connect"
            "unix:///run/uncloud/uncloud.sock"
            "machine"
            "init"
          ]
          ++ flag "network" cfg.network.cidr
          ++ flag "domain" create.domain
        );
      };
    };
  };
}
