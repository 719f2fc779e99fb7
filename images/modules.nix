# The machines that images hold, as modules, by what was flashed. A flake that
# describes such a machine imports one and has its file systems, its boot loader
# and uncloud.txt; images are made of the same files.
{ module, nixos-hardware }:
let
  flashed = system: kind: {
    imports = [
      module
      ./profile.nix
      ({ lib, ... }: { nixpkgs.hostPlatform = lib.mkDefault system; })
    ]
    ++ kind;
  };

  disk =
    { modulesPath, ... }:
    {
      imports = [
        "${modulesPath}/virtualisation/disk-image.nix"
        ./disk.nix
      ];
      image.format = "raw";
    };

  card =
    board:
    { modulesPath, ... }:
    {
      imports = [
        "${modulesPath}/installer/sd-card/sd-image-aarch64.nix"
        (import ./sd-card.nix { inherit board; })
      ];
    };

  board =
    board:
    flashed "aarch64-linux" [
      nixos-hardware.nixosModules.${board}
      (import ./raspberry-pi.nix { inherit board; })
      (card board)
    ];
in
{
  # Without a medium: for a cloud, whose module nixpkgs has.
  flashed = flashed "x86_64-linux" [ ];
  vps = flashed "x86_64-linux" [ disk ];
  pc = flashed "x86_64-linux" [
    ./pc.nix
    disk
  ];
  raspberry-pi-3 = board "raspberry-pi-3";
  raspberry-pi-4 = board "raspberry-pi-4";
  raspberry-pi-5 = board "raspberry-pi-5";
}
