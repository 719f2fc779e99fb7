# Serves the outside, and declares the project for the whole cluster.
{
  nixpkgs.hostPlatform = "x86_64-linux";
  boot.loader.grub.device = "/dev/vda";

  services.uncloud = {
    create.enable = true; # the first machine; the others come with a ticket
    labels.zone = "frankfurt";
    ingress.email = "admin@example.com";

    projects.hello.file = ../compose.yaml;
  };
}
