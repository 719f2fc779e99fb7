# Runs replicas at home, behind a router that forwards nothing.
{
  nixpkgs.hostPlatform = "aarch64-linux";
  boot.loader.grub.enable = false;
  boot.loader.generic-extlinux-compatible.enable = true;

  services.uncloud = {
    roles = [ "worker" ];
    labels.zone = "home";
    ticketFile = "/var/lib/secrets/uncloud.ticket";
  };
}
