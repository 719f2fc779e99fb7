# Two machines with generations. Each brings along what it is upgraded to:
# one that differs a little, one that nobody hears of again, and one in which
# Uncloud was forgotten.
let
  machine =
    { lib, ... }:
    {
      virtualisation.useBootLoader = true;
      system.switch.enable = true;
      services.uncloud.upgrade.confirmWithin = "2m";
      services.uncloud.labels.release = "first";
      specialisation = {
        next.configuration.services.uncloud.labels.release = lib.mkForce "next";
        deaf.configuration.systemd.services.uncloud.serviceConfig = {
          Type = lib.mkForce "exec";
          ExecStart = lib.mkForce [
            ""
            "/run/current-system/sw/bin/sleep infinity"
          ];
        };
        without.configuration.services.uncloud.enable = lib.mkForce false;
      };
    };
in
{
  one = machine;
  two = machine;
}
