# Projects that a machine declares. They are deployed by `uc deploy`, at boot and
# whenever the generation changes what they say; what is there already is left.
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
        example = lib.literalExpression "./compose.yaml";
        description = "Compose file. Files beside it that it refers to are not taken along.";
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
  content =
    name: project:
    lib.nameValuePair (place name) (
      if project.file != null then
        { source = project.file; }
      else
        { text = builtins.toJSON project.compose; } # which is YAML as well
    );

  unit =
    name: project:
    let
      uc =
        args: lib.escapeShellArgs ([ (lib.getExe' cfg.package "uc") "--connect" "unix:///run/uncloud/uncloud.sock" ] ++ args);
    in
    lib.nameValuePair "uncloud-project-${name}" {
      description = "Uncloud project ${name}";
      wantedBy = [ "multi-user.target" ];
      wants = [ "uncloud.service" ];
      after = [ "uncloud.service" ];
      restartTriggers = [ config.environment.etc.${place name}.source ];
      # It is tried until this machine is a member and its images can be had.
      startLimitIntervalSec = 0;
      serviceConfig = {
        # Not oneshot: neither the boot nor a switch waits for a rollout.
        Type = "exec";
        RemainAfterExit = true;
        ExecStartPre = map (image: uc [ "image" "push" "${image}" ]) project.images;
        ExecStart = uc (
          [ "deploy" "--yes" "--project" name "--file" "/etc/${place name}" ] ++ lib.optional project.prune "--prune"
        );
        Restart = "on-failure";
        RestartSec = "5s";
        RestartSteps = 6;
        RestartMaxDelaySec = "5min";

        DynamicUser = true;
        SupplementaryGroups = [ "uncloud" ];
        ProtectHome = true;
        CapabilityBoundingSet = "";
        RestrictAddressFamilies = [ "AF_UNIX" ];
        SystemCallArchitectures = "native";
      };
    };
in
{
  options.services.uncloud.projects = mkOption {
    type = types.attrsOf (types.submodule project);
    default = { };
    example.shop.file = lib.literalExpression "./compose.yaml";
    description = ''
      Projects to deploy, by name. One machine of a cluster is enough to declare
      a project; where several do, they should say the same. A project that is
      not declared any more goes on running until `uc rm` removes it.
    '';
  };

  config = lib.mkIf cfg.enable {
    environment.etc = lib.mapAttrs' content cfg.projects;
    systemd.services = lib.mapAttrs' unit cfg.projects;
  };
}
