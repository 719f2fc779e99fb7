# The card itself: what is on it beside the machine.
{ board }:
{
  # ZFS, whose module is built for each kernel, and the tools of a rescue system.
  disabledModules = [ "profiles/base.nix" ];

  image.baseName = "uncloud-${board}";
  sdImage.expandOnBoot = true;
  sdImage.firmwareSize = 128;
}
