# How this machine serves routes, where it has the role.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
  inherit (cfg) ingress;
  inherit (lib) mkOption types;
  given = lib.filterAttrs (_: value: value != null);
in
{
  options.services.uncloud.ingress = {
    enable = mkOption {
      type = types.bool;
      default = builtins.elem "ingress" cfg.roles;
      defaultText = lib.literalExpression ''builtins.elem "ingress" config.services.uncloud.roles'';
      readOnly = true;
      description = "Whether this machine begins as an ingress. It follows from {option}`services.uncloud.roles`.";
    };
    email = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "admin@example.com";
      description = "Given to the certificate authority, which may write to it.";
    };
    acmeServer = mkOption {
      type = types.nullOr types.nonEmptyStr;
      default = null;
      example = "https://acme-staging-v02.api.letsencrypt.org/directory";
      description = "Directory URL of the certificate authority. `null` is Let's Encrypt.";
    };
    acmeRoots = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "PEM file that the authority itself is checked with. `null` is what the system trusts.";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = ingress.enable;
      defaultText = lib.literalExpression "config.services.uncloud.ingress.enable";
      description = "Whether to open 80/tcp, 443/tcp and 443/udp in the machine's firewall.";
    };
    ports = mkOption {
      type = types.listOf types.port;
      default = [ ];
      example = [ 8080 ];
      description = ''
        Further ports of routes, as in `x-ports: ["app.example.com:8080/http"]`,
        to open in the machine's firewall.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    services.uncloud.settings.ingress = given {
      inherit (ingress) email acmeServer acmeRoots;
    };
    networking.firewall = lib.mkIf ingress.openFirewall {
      allowedTCPPorts = [
        80
        443
      ]
      ++ ingress.ports;
      allowedUDPPorts = [ 443 ];
    };
  };
}
