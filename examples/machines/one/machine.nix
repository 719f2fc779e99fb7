{
  # nixos-generate-config writes this part for the machine at hand.
  nixpkgs.hostPlatform = "x86_64-linux";
  fileSystems."/".device = "/dev/disk/by-label/nixos";
  fileSystems."/".fsType = "ext4";
  boot.loader.grub.device = "/dev/sda";
  networking.hostName = "home";
  system.stateVersion = "26.05";

  # Who gets in. Without a user or a key this system, switched to, lets nobody in.
  services.openssh.enable = true;
  users.users.root.openssh.authorizedKeys.keys = [ ]; # yours

  # The whole of it. Then: sudo uc machine init, or sudo uncloudd join TICKET-FILE.
  services.uncloud.enable = true;
}
