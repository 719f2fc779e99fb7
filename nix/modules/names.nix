# The machine itself resolves what its containers resolve. The unit and its
# script are the package's.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.uncloud;
in
{
  options.services.uncloud.names.host = lib.mkOption {
    type = lib.types.bool;
    default = true;
    description = ''
      Whether this machine's own programs resolve names of services, such as
      `web.internal`. It needs systemd-resolved, which this turns on.
    '';
  };

  config = lib.mkIf (cfg.enable && cfg.names.host) {
    services.resolved.enable = lib.mkDefault true;
    systemd.services.uncloud-names = {
      wantedBy = [ "multi-user.target" ];
      path = [
        pkgs.iproute2
        config.systemd.package
      ];
    };
  };
}
