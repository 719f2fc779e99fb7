# Projects that a machine declares. They are deployed by `uc deploy`, at boot and
# whenever a generation says something else of them; what is there already is left.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.uncloud;
  inherit (lib) mkOption types;
  json = pkgs.formats.json { };

  project = {
    options = {
      file = mkOption {
        type = types.nullOr types.path;
        default = null;
        example = lib.literalExpression ''"''${./shop}/compose.yaml"'';
        description = ''
          Compose file. Named like in the example it takes along the folder that
          it is in, with the files that it refers to.
        '';
      };
      compose = mkOption {
        type = types.nullOr json.type;
        default = null;
        example.services.web = {
          image = "docker.io/library/caddy:2";
          x-ports = [ "web.example.com:80/https" ];
        };
        description = "The same as a Nix value.";
      };
      images = mkOption {
        type = types.listOf types.package;
        default = [ ];
        example = lib.literalExpression "[ (pkgs.dockerTools.buildImage { name = \"shop\"; tag = \"3\"; }) ]";
        description = "Image archives that are sent to all machines before the project is deployed.";
      };
      prune = mkOption {
        type = types.bool;
        default = true;
        description = "Whether services of the project that are not declared any more are removed. Volumes stay.";
      };
    };
  };

  place = name: "uncloud/projects/${name}.yaml";
  declared = lib.filterAttrs (_: project: project.compose != null) cfg.projects;

  uc = args: lib.escapeShellArgs ([ (lib.getExe' cfg.package "uc") "--connect" "unix:///run/uncloud/uncloud.sock" ] ++ args);
  deploy =
    name: project:
    let
      file = if project.compose != null then "/etc/${place name}" else "${project.file}";
    in
    uc ([ "deploy" "--yes" "--project" name "--file" file ] ++ lib.optional project.prune "--prune");
  # In one program with the deploy, since systemd would have the boot wait for
  # what runs before the program, and end it after a while.
  withImages =
    name: project:
    "${pkgs.writeShellScript "uncloud-project-${name}" ''
      set -e
      ${lib.concatMapStrings (image: "${uc [ "image" "push" "${image}" ]}\n") project.images}exec ${deploy name project}
    ''}";

  unit =
    name: project:
    lib.nameValuePair "uncloud-project-${name}" {
      description = "Uncloud project ${name}";
      wantedBy = [ "uncloud-member.target" ];
      # A deploy moves replicas away from machines that are down, and to one without a network
      # all others are.
      wants = [
        "network-online.target"
        "uncloud.service"
      ];
      after = [
        "network-online.target"
        "uncloud.service"
        "uncloud-create.service"
      ];
      restartTriggers = lib.optional (project.compose != null) config.environment.etc.${place name}.source;
      # It is tried again, since what it needs may come: images, other machines.
      startLimitIntervalSec = 0;
      serviceConfig = import ../lib/client.nix // {
        # Not oneshot: neither the boot nor a switch waits for a rollout.
        Type = "exec";
        RemainAfterExit = true;
        ExecStart = (if project.images == [ ] then deploy else withImages) name project;
        Restart = "on-failure";
        RestartSec = "5s";
        RestartSteps = 10;
        RestartMaxDelaySec = "1h";
      };
    };
in
{
  options.services.uncloud.projects = mkOption {
    type = types.attrsOf (types.submodule project);
    default = { };
    example = lib.literalExpression "{ shop.file = ./compose.yaml; }";
    description = ''
      Projects to deploy, by name: at boot, and by every generation that says
      something else of them. What somebody changed by hand in between is then
      again as declared. One machine of a cluster is enough to declare a project; where
      several do, they should say the same. A project that is not declared any
      more goes on running until {command}`uc rm` removes it.
    '';
  };

  config = lib.mkIf cfg.enable {
    environment.etc = lib.mapAttrs' (
      name: project: lib.nameValuePair (place name) { text = "${builtins.toJSON project.compose}\n"; } # YAML as well
    ) declared;
    systemd.services = lib.mapAttrs' unit cfg.projects;

    # As long as this machine is no member nothing is tried.
    systemd.paths.uncloud-member = lib.mkIf (cfg.projects != { }) {
      description = "Membership in an Uncloud cluster";
      wantedBy = [ "multi-user.target" ];
      pathConfig.PathExists = "${cfg.storage.stateDir}/identity.json";
      pathConfig.Unit = "uncloud-member.target";
    };
    systemd.targets.uncloud-member = lib.mkIf (cfg.projects != { }) {
      description = "Member of an Uncloud cluster";
    };
  };
}
