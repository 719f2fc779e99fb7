# What all machines of the fleet have in common.
{
  fileSystems."/".device = "/dev/disk/by-label/nixos";
  fileSystems."/".fsType = "ext4";
  system.stateVersion = "26.05";

  # Who gets in. Without a user or a key this system, switched to, lets nobody in.
  services.openssh.enable = true;
  users.users.root.openssh.authorizedKeys.keys = [ ]; # yours

  services.uncloud.enable = true;
}
