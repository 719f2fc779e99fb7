# Wrong configurations, and what is said about each. The result lists those
# that were let through, and right ones that were not.
{ pkgs, module }:
let
  inherit (pkgs) lib;
  machine =
    uncloud: rest:
    (import (pkgs.path + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        module
        {
          nixpkgs = { inherit pkgs; };
          boot.loader.grub.enable = false;
          fileSystems."/".device = "/dev/vda1";
          fileSystems."/".fsType = "ext4";
          system.stateVersion = lib.trivial.release;
          services.uncloud = {
            enable = true;
          }
          // uncloud;
        }
        rest
      ];
    }).config;

  # A package holds itself, and so cannot be evaluated to the bottom.
  written = uncloud: removeAttrs (machine uncloud { }).services.uncloud [ "package" ];

  sentences = uncloud: rest: map (a: a.message) (lib.filter (a: !a.assertion) (machine uncloud rest).assertions);

  said = uncloud: rest: says: lib.optional (!lib.any (lib.hasInfix says) (sentences uncloud rest)) "not said: ${says}";
  warned = uncloud: rest: says: lib.optional (!lib.any (lib.hasInfix says) (machine uncloud rest).warnings) "not warned: ${says}";
  right =
    name: uncloud: rest:
    map (message: "${name} is refused: ${message}") (sentences uncloud rest)
    ++ map (message: "${name} warns: ${message}") (lib.filter (lib.hasInfix "services.uncloud") (machine uncloud rest).warnings);
  holds =
    name: uncloud: rest: is:
    lib.optional (!is (machine uncloud rest)) "not so: ${name}";
  throws =
    name: uncloud:
    lib.optional (builtins.tryEval (builtins.deepSeq (written uncloud) true)).success "let through: ${name}";

  # The projects whose files the build of the system judges.
  judged =
    config:
    lib.filter (name: name != null) (
      map (check: lib.mapNullable lib.head (builtins.match "uncloud-project-(.*)-checked" check.name)) config.system.checks
    );

  project.compose.services.web.image = "web:1";

  # A machine whose root is gone at each boot, but for these folders.
  keeps = dirs: {
    fileSystems = {
      "/".fsType = lib.mkForce "tmpfs";
    }
    // lib.genAttrs dirs (dir: {
      device = "/keep${dir}";
      fsType = "none";
      options = [ "bind" ];
    });
  };
in
lib.concatLists [
  (right "the module alone" { } { })
  (right "a full machine" {
    name = "pi-1";
    labels.zone = "home";
    create.enable = true;
    network.cidr = "10.99.0.0/16";
    network.interfaces = [ "eth0" ];
    network.endpoints = [ "203.0.113.5:51820" "[2001:db8::5]:51820" ];
    projects.shop = project;
  } { })
  (right "a worker beside a web server" { roles = [ "worker" ]; } { services.nginx.enable = true; })

  (said { ticketFile = ../flake.lock; } { } "in the Nix store")
  (said { ticketFile = "${pkgs.writeText "ticket" ""}"; } { } "in the Nix store")
  (said {
    ticketFile = "/run/ticket";
    create.enable = true;
  } { } "Leave one of them out")
  (said { network.port = 51001; } { } "needs for something else")
  (said { } {
    networking.wireguard.interfaces.wg0 = {
      listenPort = 51820;
      privateKeyFile = "/run/key";
    };
  } "so is the port of networking.wireguard.interfaces.wg0")
  (said { } {
    networking.wg-quick.interfaces.home = {
      listenPort = 51820;
      privateKeyFile = "/run/key";
    };
  } "so is the port of networking.wg-quick.interfaces.home")
  (said { } {
    systemd.network.netdevs."10-wg" = {
      netdevConfig.Name = "wg";
      netdevConfig.Kind = "wireguard";
      wireguardConfig.ListenPort = 51820;
    };
  } "so is the port of systemd.network.netdevs.10-wg")
  (said { network.port = 41641; } { services.tailscale.enable = true; } "so is the port of services.tailscale")
  (said { network.port = 53; } { } "needs for something else")
  (said { network.port = 443; } { } "needs for something else")
  (right "a worker on the port of HTTPS" {
    network.port = 443;
    roles = [ "worker" ];
  } { })
  (said { network.cidr = "10.99.0.0/16"; } { } "for the machine that makes a cluster")
  (said {
    create.enable = true;
    network.cidr = "10.99.0.0/28";
  } { } "from /8 to /24")
  (said {
    create.enable = true;
    network.cidr = "10.299.0.0/16";
  } { } "no network for a cluster")
  (said {
    create.enable = true;
    network.cidr = "10.80.0.0/12";
  } { } "overlaps with 10.88.0.0/16")
  (said { create.enable = true; } {
    networking.interfaces.lan.ipv4.addresses = [
      {
        address = "10.210.3.4";
        prefixLength = 24;
      }
    ];
  } "overlaps with 10.210.3.4/24")
  (said { } { services.nginx.enable = true; } "services.nginx both want ports 80 and 443")
  (said { } { boot.kernel.sysctl."net.ipv4.ip_forward" = lib.mkForce false; } "ip_forward\" is off")
  (said { } { system.etc.overlay = { enable = true; mutable = false; }; } "/etc/containers/networks")
  (said { } { services.resolved.enable = false; } "needs services.resolved.enable")
  (said {
    firstBoot.enable = true;
    ticketFile = "/run/ticket";
  } { } "brings a ticket of its own")
  (said {
    firstBoot.enable = true;
    create.enable = true;
  } { } "joins with the ticket that it finds")
  (said { } { networking.enableIPv6 = false; } "networking.enableIPv6 is off")
  (said { } { security.lockKernelModules = true; } "security.lockKernelModules")
  (said { } { virtualisation.podman.enable = lib.mkForce false; } "virtualisation.podman.enable is off")
  (said { storage.containersDir = "/tmp/containers"; } { } "containersDir would not outlive a boot")
  (said { storage.stateDir = "/run/uncloud-state"; } { } "stateDir would not outlive a boot")
  (said { users = [ "alice" ]; } { users.mutableUsers = false; } "names alice, and users.users does not")
  (said { upgrade.schedule = "Sun 03:00"; } { } "this one follows none")
  (said { projects.Shop = project; } { } "Shop cannot be a project's name")
  (said { projects.shop = { }; } { } "must have either file or compose")

  (warned { } { services.dnsmasq.enable = true; } "services.dnsmasq takes port 53")
  (warned { } { services.coredns.enable = true; } "services.coredns may take port 53")
  (warned { } (keeps [ ])
    "boot: /var/lib/uncloud-host (the journal of upgrades), storage.containersDir, storage.stateDir.")
  (warned { } (keeps [ "/var/lib/uncloud" ])
    "boot: /var/lib/uncloud-host (the journal of upgrades), storage.containersDir.")
  (warned { } (keeps [ "/var/lib/uncloud" "/var/lib/containers" ])
    "boot: /var/lib/uncloud-host (the journal of upgrades).")
  (warned { firstBoot.enable = true; } (keeps [ "/var/lib/uncloud" "/var/lib/containers" "/var/lib/uncloud-host" ])
    "boot: /var/lib/uncloud-first-boot (what uncloud.txt said).")
  (right "a machine that keeps what is ours" { firstBoot.enable = true; }
    (keeps [ "/var/lib/uncloud" "/var/lib/containers" "/var/lib/uncloud-host" "/var/lib/uncloud-first-boot" ]))
  (right "a machine that keeps all of /var/lib" { firstBoot.enable = true; } (keeps [ "/var/lib" ]))

  (holds "containers are forwarded where the firewall judges that" { } {
    networking.nftables.enable = true;
    networking.firewall.filterForward = true;
  } (
    config:
    let
      forwarded = lib.last (lib.splitString "chain forward-allow {" config.networking.nftables.tables.nixos-fw.content);
    in
    lib.all (way: lib.hasInfix "${way} { \"uncloud\", \"uncloud0\" } accept" forwarded) [ "iifname" "oifname" ]
  ))

  (holds "a Compose file is judged when the system is built" {
    projects.shop = project;
    projects.hello.file = "${../examples}/hello/compose.yaml";
  } { } (config: judged config == [ "hello" "shop" ]))
  (holds "one that asks for it is not" { projects.shop = project // { check = false; }; } { } (config: judged config == [ ]))
  (holds "one that only root can read is read by systemd, for the sandbox of the unit" {
    projects.shop.file = "/run/secrets/shop.yaml";
  } { } (
    config:
    let
      unit = config.systemd.services.uncloud-project-shop.serviceConfig;
    in
    judged config == [ ]
    && unit.LoadCredential == [ "compose.yaml:/run/secrets/shop.yaml" ]
    && lib.hasInfix " --file %d/compose.yaml" unit.ExecStart
    && unit.DynamicUser
  ))

  (throws "an unknown option" { nmae = "pi-1"; })
  (throws "an unknown option of a project" { projects.shop = project // { flie = ./.; }; })
  (throws "a port that is none" { network.port = 70000; })
  (throws "a name that is none" { name = "Pi 1"; })
  (throws "a role that is none" { roles = [ "leader" ]; })
  (throws "no role" { roles = [ ]; })
  (throws "a label that is no text" { labels.disk = true; })
  (throws "a network that is none" { network.cidr = "10.210.0.0"; })
  (throws "an endpoint that is none" { network.endpoints = [ "example.com:51820" ]; })
  (throws "a log level that is none" { settings.logLevel = "loud"; })
  (throws "a domain that is none" { create.domain = "Example"; })
  (throws "an MTU too small" { network.mtu = 500; })
]
