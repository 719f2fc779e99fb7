# A card for one board. The firmware volume is FAT: that is where uncloud.txt
# goes, from any computer that reads the card.
{ pkgs, ... }:
{
  hardware.raspberry-pi.firmware.uboot.enable = true;
  hardware.enableRedistributableFirmware = true; # Wi-Fi

  # Memory is scarcer than processor time, and a card wears.
  zramSwap.enable = true;

  image.modules.sd-card =
    { config, ... }:
    {
      image.baseName = "uncloud-${config.networking.hostName}${pkgs.stdenv.hostPlatform.system}";
      sdImage.expandOnBoot = true;
      sdImage.firmwareSize = 128;
    };
}
