# A member, and a machine that was flashed: who it is, a stick says.
{
  one = { };
  two =
    { pkgs, ... }:
    {
      services.uncloud.firstBoot.enable = true;
      virtualisation.emptyDiskImages = [ 64 ];
      environment.systemPackages = [ pkgs.dosfstools ];
    };
}
