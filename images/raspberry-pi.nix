# A card for one board. The firmware volume is FAT: that is where uncloud.txt
# goes, from any computer that reads the card.
{ board }:
{
  hardware.raspberry-pi.firmware.uboot.enable = true;
  hardware.enableRedistributableFirmware = true; # Wi-Fi
  networking.wireless.iwd.enable = true;

  # Memory is scarcer than processor time, and a card wears.
  zramSwap.enable = true;

  image.modules.sd-card = import ./sd-card.nix { inherit board; };
}
