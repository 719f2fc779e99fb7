# Clouds whose images nixpkgs makes, and that rent machines of that kind. Those
# of Azure and Google for ARM boot by UEFI only, and the images do not.
{
  x86_64-linux = [
    "amazon"
    "azure"
    "digital-ocean"
    "google-compute"
    "linode"
    "oci"
    "openstack"
    "proxmox"
  ];
  aarch64-linux = [
    "amazon"
    "oci"
  ];
}
