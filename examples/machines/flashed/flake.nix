{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
  inputs.uncloud.url = "github:uncloud/uncloud"; # where you have this product from
  inputs.uncloud.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    { nixpkgs, uncloud, ... }:
    let
      # What was flashed: raspberry-pi-3, -4 or -5; pc, which the installer put
      # on its disk; vps, which is image-raw-efi or image-qcow2.
      machine =
        flashed:
        nixpkgs.lib.nixosSystem {
          modules = [
            uncloud.nixosModules.${flashed}
            ./common.nix
          ];
        };
    in
    {
      # By the names that uncloud.txt gave them, which stay there.
      nixosConfigurations.pi-1 = machine "raspberry-pi-4";
      nixosConfigurations.home = machine "pc";
    };
}
