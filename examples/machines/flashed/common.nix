# What all machines have beside what their images held. Keys, Wi-Fi, address and
# name stay as uncloud.txt said.
{
  # Where this flake will be found: uc machine upgrade --all needs no more then.
  services.uncloud.upgrade.flake = "github:you/machines";

  # One machine has all of them follow it every week.
  # services.uncloud.upgrade.schedule = "Sun 03:00";
}
