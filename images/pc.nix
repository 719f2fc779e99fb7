# Any computer, where an image for a VPS knows which.
{
  hardware.enableAllHardware = true; # firmware, too
  networking.wireless.iwd.enable = true;
}
