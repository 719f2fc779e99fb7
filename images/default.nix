# Every image of one architecture, by name. All are the same machine, described
# in profile.nix, put on media of different kinds.
{
  nixpkgs,
  nixos-hardware,
  module,
  system,
}:
let
  inherit (nixpkgs) lib;
  machine =
    extra:
    (lib.nixosSystem {
      modules = [
        module
        ./profile.nix
        { nixpkgs.hostPlatform = system; }
      ]
      ++ extra;
    }).config.system.build.images;

  general = machine [ ];
  named = lib.mapAttrs' (variant: name: lib.nameValuePair "image-${name}" general.${variant});

  disks = {
    raw-efi = "raw-efi";
    qemu-efi = "qcow2";
  };
  clouds = lib.genAttrs (import ./clouds.nix).${system} lib.id;

  installed = (machine [ ./pc.nix ]).raw-efi.passthru.config.system.build.toplevel;
  iso = machine [ { image.modules.iso = import ./iso.nix { inherit installed; }; } ];

  board =
    number:
    let
      board = "raspberry-pi-${number}";
    in
    lib.nameValuePair "image-${board}"
      (machine [
        nixos-hardware.nixosModules.${board}
        (import ./raspberry-pi.nix { inherit board; })
      ]).sd-card;
in
named (disks // clouds)
// lib.optionalAttrs (system == "x86_64-linux") { image-iso = iso.iso; }
// lib.optionalAttrs (system == "aarch64-linux") (
  lib.listToAttrs (
    map board [
      "3"
      "4"
      "5"
    ]
  )
)
