# A disk with an EFI volume, where the general images and the installer put it.
{ lib, pkgs, ... }:
{
  image.baseName = "uncloud-${pkgs.stdenv.hostPlatform.system}";

  # What the disk may be behind, for who loads the rest from it. A configuration
  # of one machine says what that one has; this one boots on any.
  boot.initrd.availableKernelModules = [
    "virtio_pci"
    "virtio_mmio"
    "virtio_blk"
    "virtio_scsi"
    "nvme"
    "ahci"
    "sd_mod"
    "xhci_pci"
    "usb_storage"
    "uas"
    "mmc_block"
    "sdhci_pci"
  ]
  ++ lib.optionals pkgs.stdenv.hostPlatform.isx86_64 [
    "sdhci_acpi"
    "hv_storvsc"
    "vmw_pvscsi"
    "xen-blkfront"
  ];
  # uncloud.txt lies there until it is read, and holds a secret.
  fileSystems."/boot".options = [ "umask=0077" ];
}
