# A disk with an EFI volume, where the general images and the installer put it.
{ pkgs, ... }:
{
  image.baseName = "uncloud-${pkgs.stdenv.hostPlatform.system}";
  # uncloud.txt lies there until it is read, and holds a secret.
  fileSystems."/boot".options = [ "umask=0077" ];
}
