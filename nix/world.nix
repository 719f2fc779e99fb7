# The flake's parts without a flake, for ./dev nix: a tree of nixpkgs is used as
# it lies there, since a flake would first have it copied and hashed.
{
  nixpkgs,
  hardware ? null,
  system ? "x86_64-linux",
}:
let
  flake = {
    outPath = nixpkgs;
    lib = ((import (nixpkgs + "/flake.nix")).outputs { self = flake; }).lib // {
      # As the flake's own, but that the tree is not put into the store for each
      # system's registry.
      nixosSystem =
        args:
        import (nixpkgs + "/nixos/lib/eval-config.nix") (
          {
            inherit lib;
            system = null;
          }
          // args
        );
    };
  };
  inherit (flake) lib;
  boards = lib.genAttrs' [ "3" "4" "5" ] (
    n: lib.nameValuePair "raspberry-pi-${n}" (hardware + "/raspberry-pi/${n}")
  );
  both = { inherit pkgs module; };
  pkgs = import nixpkgs { inherit system; };
  module = {
    imports = [ ./modules ];
    services.uncloud.package = lib.mkDefault (pkgs.callPackage ./package.nix { });
  };
  images = import ../images {
    inherit system module;
    nixpkgs = flake;
    nixos-hardware.nixosModules = boards;
  };
  flashed = import ../images/modules.nix {
    inherit module;
    nixos-hardware.nixosModules = boards;
  };
in
{
  inherit lib images;
  sources = import ./sources.nix { inherit lib; };
  golden = import ./golden.nix both;
  options = import ./options.nix both;
  refusals = import ./refusals.nix both;
  machines = import ./machines.nix {
    inherit lib images flashed;
    hardware = hardware != null;
    inherit (lib) nixosSystem;
  };
  tests = (import ./checks.nix both).tests;
  scenarios = lib.filterAttrs (name: _: lib.hasPrefix "vm-" name) (import ./checks.nix both);
  # One of them is a Raspberry Pi.
  examples = lib.genAttrs ([ "one" "fleet" ] ++ lib.optional (hardware != null) "flashed") (
    name:
    lib.mapAttrs (_: machine: machine.config.system.build.toplevel.drvPath)
      ((import (../examples/machines + "/${name}/flake.nix")).outputs {
        nixpkgs = flake;
        uncloud.nixosModules = {
          default = module;
        }
        // flashed;
      }).nixosConfigurations
  );
}
