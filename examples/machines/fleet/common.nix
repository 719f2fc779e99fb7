# What all machines of the fleet have in common.
{
  fileSystems."/".device = "/dev/disk/by-label/nixos";
  fileSystems."/".fsType = "ext4";
  system.stateVersion = "26.05";

  services.openssh.enable = true;
  services.uncloud.enable = true;
}
