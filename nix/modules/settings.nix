# The agent's configuration file. The other options write into it; what they do
# not know can be said in `settings`.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.uncloud;
  format = pkgs.formats.json { };
  file = format.generate "uncloud-config.json" cfg.settings;

  # The agent itself reads the file, so a wrong key fails the build and not the boot.
  checked = pkgs.runCommand "config.json" { } ''
    ${lib.getExe' cfg.package "uncloudd"} run --check --config ${file}
    cp ${file} $out
  '';
  runs = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
in
{
  options.services.uncloud.settings = lib.mkOption {
    type = lib.types.submodule {
      freeformType = format.type;
      options.logLevel = lib.mkOption {
        type = lib.types.enum [
          "debug"
          "info"
          "warn"
          "error"
        ];
        default = "info";
        description = "What the agent says in the journal.";
      };
    };
    default = { };
    example.logLevel = "debug";
    description = ''
      Content of {file}`/etc/uncloud/config.json`; the keys are in
      {file}`docs/configuration.md`. Most of them have an option of their own.
      The agent checks the file when the system is built.
    '';
  };

  config = lib.mkIf cfg.enable {
    environment.etc."uncloud/config.json".source = if runs then checked else file;
  };
}
