# What the module makes of a machine, as files: { "machine/etc/..." = text; }, and
# in nodes.json which of these machines each node of a scenario is.
# They are installed on test machines that are not NixOS, and show in a review
# what an edit of the module changes.
{ pkgs, module }:
let
  inherit (pkgs) lib;

  machine =
    rest:
    (import (pkgs.path + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        module
        # Nodes of scenarios may say what only virtual machines have.
        (pkgs.path + "/nixos/modules/virtualisation/qemu-vm.nix")
        {
          nixpkgs = { inherit pkgs; };
          system.stateVersion = lib.trivial.release;
          services.uncloud.enable = true;
        }
        rest
      ];
    }).config;

  # The programs of a package are in /usr here. What systemd is told only so that
  # a switch of the generation knows what changed means nothing here.
  ours =
    line:
    !(lib.hasPrefix "Environment=" line || lib.hasPrefix "X-" line);
  path = lib.replaceStrings [ "${base.services.uncloud.package}" ] [ "/usr" ];
  strip =
    text:
    lib.concatMapStrings (part: if builtins.isString part then part else "") (
      builtins.split "/nix/store/[a-z0-9]{32}-" text
    );
  clean =
    text: strip (path (lib.concatStringsSep "\n" (lib.filter ours (lib.splitString "\n" text))));
  plain = text: builtins.unsafeDiscardStringContext (clean text);

  base = machine { services.uncloud.enable = lib.mkForce false; };
  files =
    config:
    let
      units = lib.filterAttrs (name: _: lib.hasPrefix "uncloud" name) config.systemd.units;
      # The package has these units; the module adds to them.
      shipped = builtins.readDir ../packaging;
      place = name: if shipped ? ${name} then "${name}.d/overrides.conf" else name;
      sysctl = lib.filterAttrs (
        name: value: (base.boot.kernel.sysctl.${name} or null) != value
      ) config.boot.kernel.sysctl;
      switch = value: if value == true then "1" else toString value;
      isOurs = name: lib.hasSuffix "60-uncloud.conf" name || lib.hasPrefix "uncloud/projects/" name;
      texts = lib.filterAttrs (name: _: isOurs name) config.environment.etc;
      modules = lib.subtractLists base.boot.kernelModules config.boot.kernelModules;
      firewall = {
        inherit (config.networking.firewall) allowedTCPPorts allowedUDPPorts trustedInterfaces;
      }
      // lib.optionalAttrs config.networking.firewall.filterForward {
        inherit (config.networking.firewall) extraForwardRules;
      };
    in
    lib.mapAttrs' (name: unit: lib.nameValuePair "etc/systemd/system/${place name}" unit.text) units
    // lib.mapAttrs' (name: file: lib.nameValuePair "etc/${name}" file.text) texts
    // {
      "etc/uncloud/config.json" = "${builtins.toJSON config.services.uncloud.settings}\n";
      "etc/sysctl.d/60-uncloud.conf" = lib.concatStrings (
        lib.mapAttrsToList (name: value: "${name} = ${switch value}\n") sysctl
      );
      "etc/modules-load.d/60-uncloud.conf" = lib.concatLines (lib.naturalSort modules);
      "firewall.json" = "${builtins.toJSON firewall}\n";
    }
    # What it may be upgraded to.
    // lib.concatMapAttrs (
      name: other: lib.mapAttrs' (path: lib.nameValuePair "specialisation/${name}/${path}") (files other.configuration)
    ) config.specialisation;

  machines = {
    # services.uncloud.enable = true; and nothing else.
    alone = { };
    # A machine that was flashed.
    flashed.services.uncloud.firstBoot.enable = true;
    # The first of a cluster, which declares a project.
    first.services.uncloud = {
      name = "one";
      labels.zone = "home";
      create.enable = true;
      ingress.email = "admin@example.com";
      projects.hello.compose.services.web.image = "hello-web:1";
    };
  };

  # The nodes of each scenario, too. What says the same or comes to the same is
  # one machine.
  scenarios = lib.mapAttrs (_: it: it.nodes) (import ./scenarios.nix { inherit lib; });
  all =
    lib.attrsToList machines
    ++ lib.concatLists (
      lib.mapAttrsToList (
        scenario: lib.mapAttrsToList (node: lib.nameValuePair "${scenario}-${node}")
      ) scenarios
    );
  first = is: default: (lib.findFirst is default all).name;
  saysAs = own: rest: first (m: m.value == rest) { name = own; };
  made = lib.listToAttrs (
    map (m: lib.nameValuePair m.name (lib.mapAttrs (_: plain) (files (machine m.value)))) (
      lib.filter (m: saysAs m.name m.value == m.name) all
    )
  );
  comesTo = name: first (m: made ? ${m.name} && made.${m.name} == made.${name}) null;
  nodes = lib.mapAttrs (
    scenario: lib.mapAttrs (node: rest: comesTo (saysAs "${scenario}-${node}" rest))
  ) scenarios;
in
lib.concatMapAttrs (
  name: lib.mapAttrs' (path: text: lib.nameValuePair "${name}/${path}" text)
) (lib.filterAttrs (name: _: comesTo name == name) made)
// {
  "nodes.json" = "${builtins.toJSON nodes}\n";
}
