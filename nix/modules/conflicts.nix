# Combinations that cannot work, each with the sentence that a person needs.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
  cidr = import ../lib/cidr.nix { inherit lib; };

  clusterNetwork = if cfg.create.network != null then cfg.create.network else "10.210.0.0/16";
  podmanNetworks = map (s: s.subnet) (
    config.virtualisation.podman.defaultNetwork.settings.subnets or [ { subnet = "10.88.0.0/16"; } ]
  );
  ownAddresses = lib.concatMap (
    interface: map (a: "${a.address}/${toString a.prefixLength}") interface.ipv4.addresses
  ) (lib.attrValues config.networking.interfaces);
  overlapping = lib.filter (cidr.overlap clusterNetwork) (podmanNetworks ++ ownAddresses);

  otherWireGuard = lib.attrNames (
    lib.filterAttrs (_: i: i.listenPort == cfg.network.port) config.networking.wireguard.interfaces
  );
  webServers = lib.filter (name: config.services.${name}.enable) [
    "caddy"
    "haproxy"
    "httpd"
    "nginx"
    "traefik"
  ];
  inStore = path: path != null && lib.hasPrefix builtins.storeDir "${toString path}/";
  projects = lib.attrNames cfg.projects;
  badNames = lib.filter (name: builtins.match "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?" name == null) projects;
  unclear = lib.filter (name: with cfg.projects.${name}; (file == null) == (compose == null)) projects;

  refuse = broken: message: {
    assertion = !broken;
    inherit message;
  };
  list = lib.concatStringsSep ", ";
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      (refuse (builtins.isPath cfg.ticketFile || inStore cfg.ticketFile) ''
        services.uncloud.ticketFile would be in the Nix store, where everybody can read it.
        Put the ticket somewhere else on the machine and name it as a string: "/var/lib/secrets/uncloud.ticket".'')
      (refuse (cfg.ticketFile != null && cfg.create.enable) ''
        services.uncloud.ticketFile joins a cluster and services.uncloud.create.enable makes a new one.
        Leave one of them out.'')
      (refuse (builtins.elem cfg.network.port [ 51001 ] || (cfg.ingress.enable && cfg.network.port == 443)) ''
        services.uncloud.network.port is ${toString cfg.network.port}, which the agent needs for something else. Choose another.'')
      (refuse (otherWireGuard != [ ]) ''
        services.uncloud.network.port is ${toString cfg.network.port}, and so is the listenPort of networking.wireguard.interfaces ${list otherWireGuard}.
        Change one of them.'')
      (refuse (cfg.create.enable && overlapping != [ ]) ''
        The network of the new cluster, ${clusterNetwork}, overlaps with ${list overlapping} of this machine.
        Choose another with services.uncloud.create.network.'')
      (refuse (cfg.ingress.enable && webServers != [ ]) ''
        The ingress and services.${lib.head (webServers ++ [ "" ])} both want ports 80 and 443.
        Take the role away with services.uncloud.roles = [ "worker" ], or make the web server a service of the cluster.'')
      (refuse (toString config.boot.kernel.sysctl."net.ipv4.ip_forward" != "1") ''
        boot.kernel.sysctl."net.ipv4.ip_forward" is off, and containers reach nothing without it. Remove that setting.'')
      (refuse (config.system.etc.overlay.enable && !config.system.etc.overlay.mutable) ''
        Podman keeps its networks in /etc/containers/networks, which system.etc.overlay.mutable = false makes read-only.'')
      (refuse (cfg.names.host && !config.services.resolved.enable) ''
        services.uncloud.names.host needs services.resolved.enable. Turn that on, or this off.'')
      (refuse (cfg.firstBoot.enable && cfg.ticketFile != null) ''
        services.uncloud.firstBoot brings a ticket of its own. Leave services.uncloud.ticketFile out.'')
      (refuse (badNames != [ ]) ''
        services.uncloud.projects: ${list badNames} cannot be a project's name. Use small letters, digits and dashes.'')
      (refuse (unclear != [ ]) ''
        services.uncloud.projects: ${list unclear} must have either file or compose.'')
    ];
    warnings =
      lib.optional (config.services.dnsmasq.enable && !(config.services.dnsmasq.settings.bind-dynamic or false)) ''
        services.dnsmasq takes port 53 of every address, and the agent needs it on the address of its bridge.
        Set services.dnsmasq.settings.bind-dynamic = true.'';
  };
}
