# Generations: what `uc machine upgrade` may do to this machine. The agent only
# orders; what changes the system is a unit of its own, which a switch leaves
# alone, because it is the one that waits for the other machines to confirm it
# and returns when they do not.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.uncloud;
  inherit (cfg) upgrade;
  inherit (lib) mkOption types;
  given = lib.filterAttrs (_: value: value != null && value != false);
in
{
  options.services.uncloud.upgrade = {
    flake = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "github:you/machines";
      description = "Flake that {command}`uc machine upgrade` leads to when it names nothing.";
    };
    configuration = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      description = ''
        Name of this machine among the `nixosConfigurations` of a flake. `null`
        is its host name.
      '';
    };
    confirmWithin = mkOption {
      type = types.strMatching "([0-9]+(h|m|s))+";
      default = "5m";
      example = "10m";
      description = ''
        How long a new generation waits for the other machines of the cluster to
        confirm it. Then this machine returns to the one that it ran before.
      '';
    };
    allowRestart = mkOption {
      type = types.bool;
      default = true;
      description = "Whether {command}`uc machine upgrade --reboot` may restart this machine.";
    };
    drain = mkOption {
      type = types.bool;
      default = false;
      description = "Whether replicas move away before every upgrade, also where it is not asked for.";
    };
    schedule = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "Sun 03:00";
      description = ''
        When this machine has all machines of the cluster upgrade, each to the
        flake that it follows, as a calendar event of {manpage}`systemd.time(7)`.
        Those that are down then are left out, and told of in the journal.
        One machine of a cluster is enough to declare it.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    services.uncloud.settings.upgrade = given {
      inherit (upgrade) flake configuration drain;
      confirmWithin = if upgrade.confirmWithin == "5m" then null else upgrade.confirmWithin;
      refuseRestart = !upgrade.allowRestart;
    };

    systemd.paths.uncloud-host.wantedBy = [ "multi-user.target" ];
    systemd.services.uncloud-host = {
      wantedBy = [ "multi-user.target" ]; # it goes on where a restart stopped it
      path = [
        config.nix.package
        config.programs.ssh.package
        config.systemd.package
        pkgs.gitMinimal
      ];
      restartIfChanged = false;
      stopIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
    };

    systemd.services.uncloud-upgrade = lib.mkIf (upgrade.schedule != null) {
      description = "Upgrade all machines of the cluster";
      startAt = upgrade.schedule;
      after = [ "uncloud.service" ];
      restartIfChanged = false;
      unitConfig.X-StopOnRemoval = false;
      serviceConfig = import ../lib/client.nix // {
        Type = "oneshot";
        ExecStart = lib.escapeShellArgs [
          (lib.getExe' cfg.package "uc")
          "--connect"
          "unix:///run/uncloud/uncloud.sock"
          "machine"
          "upgrade"
          "--all"
          # Who is down for good must not keep the others from their updates.
          "--skip-down"
        ];
      };
    };
  };
}
