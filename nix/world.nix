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
    inherit ((import (nixpkgs + "/flake.nix")).outputs { self = flake; }) lib;
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
in
{
  inherit pkgs;
  sources = import ./sources.nix { inherit lib; };
  golden = import ./golden.nix both;
  options = import ./options.nix both;
  refusals = import ./refusals.nix both;
  images = import ../images {
    inherit system module;
    nixpkgs = flake;
    nixos-hardware.nixosModules = boards;
  };
  examples = lib.genAttrs [ "one" "fleet" ] (
    name:
    lib.mapAttrs (_: machine: machine.config.system.build.toplevel.drvPath)
      ((import (../examples/machines + "/${name}/flake.nix")).outputs {
        nixpkgs = flake;
        uncloud.nixosModules.default = module;
      }).nixosConfigurations
  );
}
