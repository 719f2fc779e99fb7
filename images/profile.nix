# The machine that every image holds: a member of a cluster to be, and nothing
# that it does not need for that.
{
  config,
  lib,
  modulesPath,
  ...
}:
{
  imports = [
    "${modulesPath}/profiles/minimal.nix"
    ./access.nix
    ./network.nix
  ];

  services.uncloud = {
    enable = true;
    firstBoot.enable = true;
  };

  image.modules = lib.genAttrs [ "raw-efi" "qemu-efi" ] (_: ./disk.nix);

  # An upgrade is a flake or a system path.
  nix.settings.experimental-features = [
    "nix-command"
    "flakes"
  ];
  # Nix's database is flushed by itself and the files that it tells of are not, so
  # a machine that loses its power could find a generation of empty files. Other
  # Nixes do not know the setting, and refuse a nix.conf that has it.
  nix.settings.fsync-store-paths = lib.mkIf (
    lib.getName config.nix.package == "nix" && lib.versionAtLeast (lib.getVersion config.nix.package) "2.26"
  ) true;
  # The sources of nixpkgs, 200 MB and more, are no part of a machine.
  nixpkgs.flake.setNixPath = false;
  nixpkgs.flake.setFlakeRegistry = false;
  # Small cards fill up with generations.
  nix.gc = {
    automatic = true;
    dates = "weekly";
    options = "--delete-older-than 30d";
  };
  boot.loader.systemd-boot.configurationLimit = lib.mkDefault 3; # on 250 MB
  boot.loader.generic-extlinux-compatible.configurationLimit = lib.mkDefault 5;

  # A machine without a clock of its own cannot check certificates otherwise.
  services.timesyncd.enable = lib.mkDefault true;

  system.stateVersion = "26.05";
}
