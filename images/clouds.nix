# Clouds whose images nixpkgs makes, and that rent machines of that kind.
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
    "azure"
    "google-compute"
    "oci"
  ];
}
