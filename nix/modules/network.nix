# The one port, and what the kernel must do with the packets behind it.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
  inherit (cfg) network;
  inherit (lib) mkOption types;
in
{
  options.services.uncloud.network = {
    cidr = mkOption {
      type = types.nullOr (types.strMatching "[0-9]+(\\.[0-9]+){3}/[0-9]+");
      default = null;
      example = "10.99.0.0/16";
      description = ''
        Network of the machines and containers of the cluster that
        {option}`services.uncloud.create` makes. `null` is 10.210.0.0/16. It cannot
        be changed later, and a machine that joins is told it by the others.
      '';
    };
    interfaces = mkOption {
      type = types.listOf types.nonEmptyStr;
      default = [ ];
      example = [ "eth0" ];
      description = ''
        Links at which others reach this machine: the port is opened on these only,
        and others are told the addresses of these only. Empty is all links.
      '';
    };
    port = mkOption {
      type = types.port;
      default = 51820;
      description = "UDP port of WireGuard: the only one that a machine needs to be reached at.";
    };
    endpoints = mkOption {
      type = types.listOf (types.strMatching "([0-9.]+|\\[[0-9a-f:]+[]]):[0-9]+");
      default = [ ];
      example = [
        "203.0.113.5:51820"
        "[2001:db8::5]:51820"
      ];
      description = ''
        Addresses at which others may reach this machine, besides those on its
        links: a public address behind a forwarding router.
      '';
    };
    mtu = mkOption {
      type = types.nullOr (types.ints.between 1280 65535);
      default = null;
      description = "MTU of the mesh. `null` is that of the way out minus 80.";
    };
    openFirewall = mkOption {
      type = types.bool;
      default = true;
      description = "Whether to open {option}`services.uncloud.network.port` in the machine's firewall.";
    };
  };

  config = lib.mkIf cfg.enable {
    services.uncloud.settings = {
      listenPort = network.port;
      endpoints = lib.mkIf (network.endpoints != [ ]) network.endpoints;
      mtu = lib.mkIf (network.mtu != null) network.mtu;
      interfaces = lib.mkIf (network.interfaces != [ ]) network.interfaces;
    };

    networking.firewall = {
      allowedUDPPorts = lib.mkIf (network.openFirewall && network.interfaces == [ ]) [ network.port ];
      interfaces = lib.mkIf network.openFirewall (
        lib.genAttrs network.interfaces (_: { allowedUDPPorts = [ network.port ]; })
      );
      # What comes from the mesh and from containers is judged by the agent's own
      # table, before this firewall: names, echo, and for machines the API.
      trustedInterfaces = [
        "uncloud"
        "uncloud0"
      ];
      # Where the firewall judges what is forwarded as well, the same holds for what
      # containers send and receive: any table may drop what the agent's accepts.
      extraForwardRules = ''
        iifname { "uncloud", "uncloud0" } accept comment "containers and the mesh"
        oifname { "uncloud", "uncloud0" } accept comment "containers and the mesh"
      '';
      # A machine with two ways out may hear from a peer on the other one.
      checkReversePath = lib.mkDefault "loose";
    };

    # Loaded before the agent, whose sandbox may not.
    boot.kernelModules = [
      "wireguard"
      "bridge"
      "veth"
      "nf_tables"
    ];
    # Stronger than the default that other modules give it, weaker than the user.
    boot.kernel.sysctl."net.ipv4.ip_forward" = lib.mkOverride 97 true;
  };
}
