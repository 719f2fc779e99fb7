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
          it is in, with the files that it refers to, into the Nix store, where
          everybody on the machine can read them.

          A file that is named as a string and is not in the store, such as
          `"/run/secrets/shop.yaml"`, is read when the project is deployed. It may be
          one that only root can read; it comes alone, without the folder that it is in.

          What it refers to with `env_file` or `configs` is read by a user who is not
          root. A file that only root can read is given to the unit as a credential,
          and is then `''${CREDENTIALS_DIRECTORY}/web.env` in the Compose file:
          `systemd.services.uncloud-project-NAME.serviceConfig.LoadCredential = "web.env:/run/secrets/web.env"`.
          What services are given, secret or not, is known to every machine of the cluster.
        '';
      };
      compose = mkOption {
        type = types.nullOr json.type;
        default = null;
        example.services.web = {
          image = "docker.io/library/caddy:2";
          x-ports = [ "web.example.com:80/https" ];
        };
        description = ''
          The same as a Nix value. It is in the Nix store and in /etc, where everybody
          on the machine can read it: no place for a password. That comes from a file,
          as with {option}`services.uncloud.projects.<name>.file`.
        '';
      };
      images = mkOption {
        type = types.listOf types.package;
        default = [ ];
        example = lib.literalExpression "[ (pkgs.dockerTools.buildImage { name = \"shop\"; tag = \"3\"; }) ]";
        description = "Image archives that are sent to all machines before the project is deployed.";
      };
      check = mkOption {
        type = types.bool;
        default = true;
        description = ''
          Whether the Compose file is judged when the system is built, so that a wrong one
          fails there and not later in `uncloud-project-NAME.service`. One that refers to
          files or variables that only the machine has can be judged there alone, as is
          a file that is not in the Nix store.
        '';
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

  # One that is not in the store may be root's alone, so systemd reads it for the unit.
  credential = "compose.yaml";
  isFound = project: project.file != null && !lib.hasPrefix "${builtins.storeDir}/" "${project.file}";

  uc = args: lib.escapeShellArgs ([ (lib.getExe' cfg.package "uc") "--connect" "unix:///run/uncloud/uncloud.sock" ] ++ args);
  deploy =
    name: project:
    let
      file =
        if project.compose != null then
          "/etc/${place name}"
        else if isFound project then
          "%d/${credential}"
        else
          "${project.file}";
    in
    uc ([ "deploy" "--yes" "--project" name "--file" file ] ++ lib.optional project.prune "--prune");
  # In one program with the deploy, since systemd would have the boot wait for
  # what runs before the program, and end it after a while.
  withImages =
    name: project:
    "${pkgs.writeShellScript "uncloud-project-${name}" ''
      set -e
      ${lib.concatMapStrings (image: "${uc [ "image" "push" "${image}" ]}\n") project.images}exec "$@"
    ''} ";

  # The program that deploys the file judges it.
  runs = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
  judged =
    name: project:
    let
      file = if project.compose != null then config.environment.etc.${place name}.source else "${project.file}";
    in
    pkgs.runCommand "uncloud-project-${name}-checked" { } ''
      ${lib.getExe' cfg.package "uc"} deploy --check --project ${name} --file ${file} || {
        echo "services.uncloud.projects.${name}: where only the machine has what this refers to, set check = false"
        exit 1
      }
      touch $out
    '';

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
        ExecStart = lib.optionalString (project.images != [ ]) (withImages name project) + deploy name project;
        LoadCredential = lib.mkIf (isFound project) [ "${credential}:${project.file}" ];
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
      again as declared. {command}`journalctl -u uncloud-project-NAME` tells how it
      went, and what failed is tried again. One machine of a cluster is enough to
      declare a project; where several do, they should say the same. A project that
      is not declared any more goes on running until {command}`uc rm` removes it.
    '';
  };

  config = lib.mkIf cfg.enable {
    environment.etc = lib.mapAttrs' (
      name: project: lib.nameValuePair (place name) { text = "${builtins.toJSON project.compose}\n"; } # YAML as well
    ) declared;
    system.checks = lib.mapAttrsToList judged (
      lib.filterAttrs (_: project: runs && project.check && !isFound project) cfg.projects
    );
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
