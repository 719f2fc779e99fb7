{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.uncloud.url = "github:uncloud/uncloud"; # where you have this product from
  inputs.uncloud.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    { nixpkgs, uncloud, ... }:
    {
      nixosConfigurations.home = nixpkgs.lib.nixosSystem {
        modules = [
          uncloud.nixosModules.default
          ./machine.nix
        ];
      };
    };
}
