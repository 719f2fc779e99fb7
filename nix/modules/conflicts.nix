# Combinations that cannot work, each with the sentence that a person needs.
{ config, lib, ... }:
let
  cfg = config.services.uncloud;
  cidr = import ../lib/cidr.nix { inherit lib; };

  clusterNetwork = if cfg.network.cidr != null then cfg.network.cidr else "10.210.0.0/16";
  podmanNetworks = map (s: s.subnet) (
    config.virtualisation.podman.defaultNetwork.settings.subnets or [ { subnet = "10.88.0.0/16"; } ]
  );
  ownAddresses = lib.concatMap (
    interface: map (a: "${a.address}/${toString a.prefixLength}") interface.ipv4.addresses
  ) (lib.attrValues config.networking.interfaces);
  overlapping = lib.filter (cidr.overlap clusterNetwork) (podmanNetworks ++ ownAddresses);

  # Who else listens on our UDP port, by the name of the option that says so.
  onOurPort = lib.attrNames (lib.filterAttrs (_: port: port == cfg.network.port) (
    lib.mapAttrs' (name: i: lib.nameValuePair "networking.wireguard.interfaces.${name}" i.listenPort)
      config.networking.wireguard.interfaces
    // lib.mapAttrs' (name: i: lib.nameValuePair "networking.wg-quick.interfaces.${name}" i.listenPort)
      config.networking.wg-quick.interfaces
    // lib.mapAttrs' (name: n: lib.nameValuePair "systemd.network.netdevs.${name}" (n.wireguardConfig.ListenPort or null))
      config.systemd.network.netdevs
    // lib.optionalAttrs config.services.tailscale.enable { "services.tailscale" = config.services.tailscale.port; }
  ));
  webServers = lib.filter (name: config.services.${name}.enable) [
    "caddy"
    "haproxy"
    "httpd"
    "nginx"
    "traefik"
  ];
  resolvers = lib.filter (name: config.services.${name}.enable) [
    "adguardhome"
    "blocky"
    "coredns"
  ];
  dnsmasq = config.services.dnsmasq;

  under = dir: path: path == dir || lib.hasPrefix "${dir}/" "${toString path}/";
  inStore = path: path != null && under builtins.storeDir path;
  places = {
    "storage.stateDir" = cfg.storage.stateDir;
    "storage.containersDir" = cfg.storage.containersDir;
    "/var/lib/uncloud-host (the journal of upgrades)" = "/var/lib/uncloud-host";
  }
  // lib.optionalAttrs cfg.firstBoot.enable {
    "${cfg.firstBoot.directory} (what uncloud.txt said)" = cfg.firstBoot.directory;
  };
  fleeting = lib.filter (
    name: lib.any (dir: under dir places.${name}) [ "/dev" "/run" "/tmp" "/var/tmp" ]
  ) (lib.attrNames places);
  # The file system that a directory is on: the one with the longest mount point.
  mountOf = dir: lib.last (
    lib.sortOn (m: lib.stringLength m.mountPoint) (
      [ { mountPoint = ""; fsType = "none"; } ]
      ++ lib.filter (m: m.mountPoint == "/" || under m.mountPoint dir) (lib.attrValues config.fileSystems)
    )
  );
  inMemory = lib.filter (
    name: builtins.elem (mountOf places.${name}).fsType [ "tmpfs" "ramfs" ]
  ) (lib.attrNames places);
  strangers = lib.filter (name: !config.users.users ? ${name}) cfg.users;

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
      # Becoming a member.
      (refuse (builtins.isPath cfg.ticketFile || inStore cfg.ticketFile) ''
        services.uncloud.ticketFile would be in the Nix store, where everybody can read it.
        Put the ticket somewhere else on the machine and name it as a string: "/var/lib/secrets/uncloud.ticket".'')
      (refuse (cfg.ticketFile != null && cfg.create.enable) ''
        services.uncloud.ticketFile joins a cluster and services.uncloud.create.enable makes a new one.
        Leave one of them out.'')
      (refuse (cfg.firstBoot.enable && cfg.ticketFile != null) ''
        services.uncloud.firstBoot brings a ticket of its own. Leave services.uncloud.ticketFile out.'')
      (refuse (cfg.firstBoot.enable && cfg.create.enable) ''
        services.uncloud.firstBoot joins with the ticket that it finds, and services.uncloud.create.enable makes a new cluster.
        Leave one of them out.'')
      (refuse (cfg.users != [ ] && strangers != [ ] && !config.users.mutableUsers) ''
        services.uncloud.users names ${list strangers}, and users.users does not.'')

      # The network of the cluster.
      (refuse (cfg.network.cidr != null && !cfg.create.enable) ''
        services.uncloud.network.cidr is for the machine that makes a cluster; one that joins is told by the others.
        Leave it out, or turn services.uncloud.create.enable on.'')
      (refuse (!cidr.valid clusterNetwork || cidr.bits clusterNetwork < 8 || cidr.bits clusterNetwork > 24) ''
        services.uncloud.network.cidr is ${clusterNetwork}, which is no network for a cluster: it has to be IPv4, from /8 to /24.'')
      (refuse (cfg.create.enable && cidr.valid clusterNetwork && overlapping != [ ]) ''
        The network of the new cluster, ${clusterNetwork}, overlaps with ${list overlapping} of this machine.
        Choose another with services.uncloud.network.cidr.'')

      # Ports.
      (refuse (builtins.elem cfg.network.port [ 0 53 51001 ] || (cfg.ingress.enable && cfg.network.port == 443)) ''
        services.uncloud.network.port is ${toString cfg.network.port}, which the agent needs for something else. Choose another.'')
      (refuse (onOurPort != [ ]) ''
        services.uncloud.network.port is ${toString cfg.network.port}, and so is the port of ${list onOurPort}.
        Change one of them.'')
      (refuse (cfg.ingress.enable && webServers != [ ]) ''
        The ingress and services.${lib.head (webServers ++ [ "" ])} both want ports 80 and 443.
        Take the role away with services.uncloud.roles = [ "worker" ], or make the web server a service of the cluster.'')

      # What the machine must be able to do.
      (refuse (toString config.boot.kernel.sysctl."net.ipv4.ip_forward" != "1") ''
        boot.kernel.sysctl."net.ipv4.ip_forward" is off, and containers reach nothing without it. Remove that setting.'')
      (refuse (!config.networking.enableIPv6) ''
        networking.enableIPv6 is off, and inside the mesh machines speak IPv6 with one another. Turn it on; no provider has to offer it.'')
      (refuse config.security.lockKernelModules ''
        security.lockKernelModules keeps the kernel from loading what rules of the firewall ask for. Turn it off.'')
      (refuse (!config.virtualisation.podman.enable) ''
        virtualisation.podman.enable is off, and Podman is what runs the containers. Remove that setting.'')
      (refuse (config.system.etc.overlay.enable && !config.system.etc.overlay.mutable) ''
        Podman keeps its networks in /etc/containers/networks, which system.etc.overlay.mutable = false makes read-only.'')
      (refuse (cfg.names.host && !config.services.resolved.enable) ''
        services.uncloud.names.host needs services.resolved.enable. Turn that on, or this off.'')
      (refuse (fleeting != [ ]) ''
        services.uncloud: ${list fleeting} would not outlive a boot. Choose a place such as /var/lib.'')

      (refuse (cfg.upgrade.schedule != null && cfg.upgrade.flake == null) ''
        services.uncloud.upgrade.schedule has the machines upgrade to the flakes that they follow, and this one follows none.
        Set services.uncloud.upgrade.flake.'')

      # Projects.
      (refuse (badNames != [ ]) ''
        services.uncloud.projects: ${list badNames} cannot be a project's name. Use small letters, digits and dashes.'')
      (refuse (unclear != [ ]) ''
        services.uncloud.projects: ${list unclear} must have either file or compose.'')
    ];
    warnings =
      lib.optional (dnsmasq.enable && !(dnsmasq.settings.bind-dynamic or false)) ''
        services.dnsmasq takes port 53 of every address, and the agent needs it on the address of its bridge.
        Set services.dnsmasq.settings.bind-dynamic = true.''
      ++ lib.optional (resolvers != [ ]) ''
        services.${lib.head resolvers} may take port 53 of every address, and the agent needs it on the address of its bridge.
        Tell it the addresses that it is to listen on.''
      ++ lib.optional (config.systemd.services.uncloud.wantedBy != [ ] && inMemory != [ ]) ''
        services.uncloud keeps in memory on this machine, and loses at the next boot: ${list inMemory}.
        Mount something there that lasts.'';
  };
}
