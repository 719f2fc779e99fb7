# Any cable gets an address by DHCP; a Wi-Fi and a static address come from
# uncloud.txt, as files of iwd, where a machine may have one, and networkd.
{ lib, ... }:
{
  networking = {
    useNetworkd = true;
    useDHCP = lib.mkDefault true;
  };
  # A machine with a second, dead cable is online all the same.
  systemd.network.wait-online.anyInterface = lib.mkDefault true;
}
