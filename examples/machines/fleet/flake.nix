{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.uncloud.url = "github:uncloud/uncloud"; # where you have this product from
  inputs.uncloud.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    { nixpkgs, uncloud, ... }:
    let
      machine =
        name:
        nixpkgs.lib.nixosSystem {
          modules = [
            uncloud.nixosModules.default
            ./common.nix
            ./machines/${name}.nix
            { networking.hostName = name; }
          ];
        };
    in
    {
      nixosConfigurations = nixpkgs.lib.genAttrs [ "vps" "pi" ] machine;
    };
}
