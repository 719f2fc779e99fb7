# A member, and a machine that was flashed: who it is, a stick says.
{
  one = { };
  two =
    { lib, pkgs, ... }:
    {
      services.uncloud.firstBoot.enable = true;
      # The test driver names its machines; this one is to be named by the stick.
      networking.hostName = lib.mkForce "";
      system.name = "two";
      virtualisation.emptyDiskImages = [ 64 ];
      environment.systemPackages = [ pkgs.dosfstools ];
    };
}
